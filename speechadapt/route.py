"""A route: what an utterance uses. The frozen base, an adapter, or several one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from speechadapt.errors import RouteError

# Signs that stacks and combinations of adapters are written with, and paths.
RESERVED = "+,():@/"


@dataclass(frozen=True)
class Stack:
    """Adapters applied one after another, e.g. of a language and of a noise.

    As in MAD-X (Pfeiffer et al. 2020, section 3).

    Where several attach to one site, each reads what the ones before it made. Written
    ``be+babble``.

    Args:
        names: Two or more, each once.

    Raises:
        RouteError: A name that cannot be used, fewer than two, or one of them twice.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str):
        for name in names:
            check_name(name)
        if len(names) < 2 or len(set(names)) < len(names):
            raise RouteError(
                f"stack {'+'.join(names)!r} cannot be used: give two or more adapters, each once"
            )
        object.__setattr__(self, "names", names)

    def __str__(self) -> str:
        return "+".join(self.names)


Route: TypeAlias = str | Stack | None
"""None = the frozen base; a string = the adapter of that name."""


def adapter_names(route: Route) -> tuple[str, ...]:
    """The adapters of a route, in the order in which they are applied."""
    if route is None:
        return ()
    return route.names if isinstance(route, Stack) else (route,)


def parse_route(text: str) -> Route:
    """Read a route as users write it: ``none``, ``be`` or ``be+babble``.

    Raises:
        RouteError: Empty, or it holds a sign reserved for combinations.
    """
    names = [name.strip() for name in text.split("+")]
    if len(names) > 1:
        return Stack(*names)
    if names[0].lower() == "none":
        return None
    check_name(names[0])
    return names[0]


def check_name(name: str) -> None:
    """Refuse names that could not be told from a composed route.

    Raises:
        RouteError: Empty, ``none``, white space, or a reserved sign.
    """
    if not name or name.lower() == "none" or any(c in RESERVED or c.isspace() for c in name):
        raise RouteError(
            f"adapter name {name!r} cannot be used: write a name without white space and without "
            f"the signs {' '.join(RESERVED)} (combinations are not supported yet)"
        )
