"""The one error that a user of this package can cause."""

from __future__ import annotations

from collections.abc import Iterable


class EvalError(Exception):
    """Input that cannot be scored: one sentence with the place, the reason and the way out."""


def some(names: Iterable[str], most: int = 3) -> str:
    """Name the first few of a set of ids: ``'utt1', 'utt2', 'utt3' and 40 more``."""
    ordered = sorted(names)
    shown = ", ".join(repr(name) for name in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def choose(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raise an EvalError that lists the choices unless ``name`` is one of them."""
    if name not in (known := list(choices)):
        raise EvalError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
