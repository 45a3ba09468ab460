"""From ``NAME=KIND:ARGUMENT`` to a system."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.folder import safe_name
from speechadapt_eval.runs.systems.protocol import System

GROUP = "speechadapt_eval.systems"
# Those of this package, which are there even where it runs from a checkout that is not installed.
OWN = {
    "cmd": "speechadapt_eval.runs.systems.command:Command",
    "faster-whisper": "speechadapt_eval.runs.systems.faster_whisper:FasterWhisper",
    "http": "speechadapt_eval.runs.systems.http:Http",
    "python": "speechadapt_eval.runs.systems.function:Function",
}
_SPEC = re.compile(r"(?:([^=:]+)=)?([\w-]+):(.+)", re.DOTALL)


@dataclass(frozen=True)
class Spec:
    """A system that was asked for.

    Attributes:
        name: Unique and fit for a file name.
        kind: How it is run.
        argument: What the kind wants to know.
        text: Kind and argument as they were given.
    """

    name: str
    kind: str
    argument: str
    text: str

    @property
    def needs_lang(self) -> bool:
        """Whether it is another system for each language, by ``{lang}`` in its argument.

        A kind with ``fills_lang`` puts the language of each clip in by itself.
        """
        own = getattr(_factory(self.kind), "fills_lang", False)
        return "{lang}" in self.argument and not own

    def system(self, language: str | None) -> System:
        """Make the system, with ``{lang}`` replaced by the language of a set.

        Raises:
            EvalError: The argument is wrong, or the set has no one language to fill in.
        """
        argument = self.argument
        if self.needs_lang:
            if language is None:
                raise EvalError(
                    f"system {self.name!r} has {{lang}}, but the language of the set is not known "
                    "or not the same for all: give sets of one language, with utt2lang or 'lang'"
                )
            argument = argument.replace("{lang}", language)
        with sentence(f"system {self.name!r}"):
            return _factory(self.kind)(argument)


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """Turn whatever a system raises into one sentence; also what is not of this package.

    Raises:
        EvalError: ``what``, and what was raised in the block.
    """
    try:
        yield
    except EvalError:
        raise
    except Exception as error:  # a system may raise anything
        raise EvalError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An error on one line: its text, behind its type where that is no sentence of ours."""
    text = " ".join(str(error).split())
    own = type(error).__name__
    return text if own.endswith("Error") and " " in text else f"{own}: {text}" if text else own


def parse(text: str) -> Spec:
    """Read ``KIND:ARGUMENT`` or ``NAME=KIND:ARGUMENT``.

    Raises:
        EvalError: It is neither, or there is no such kind.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise EvalError(
            f"--system {text!r}: write KIND:ARGUMENT or NAME=KIND:ARGUMENT, with one of the kinds "
            f"{', '.join(kinds())}"
        )
    name, kind, argument = match.groups()
    if kind not in kinds():
        raise EvalError(
            f"--system {text!r}: unknown kind {kind!r}: choose one of {', '.join(kinds())} "
            "(kinds come with installed packages; install again after an update)"
        )
    if name is not None and name != safe_name(name):
        raise EvalError(f"--system {text!r}: use a name such as {safe_name(name)!r}")
    given = text if name is None else text.split("=", 1)[1]
    return Spec(name or safe_name(given), kind, argument, given)


def parse_all(texts: Sequence[str]) -> list[Spec]:
    """Read several.

    Raises:
        EvalError: As ``parse``, or two have one name.
    """
    specs: dict[str, Spec] = {}
    for text in texts:
        spec = parse(text)
        if twin := specs.get(spec.name.casefold()):
            raise EvalError(
                f"two systems are called {spec.name!r} ({twin.text!r} and {spec.text!r}): "
                "give one another name, as NAME=KIND:ARGUMENT"
            )
        specs[spec.name.casefold()] = spec
    return list(specs.values())


def kinds() -> list[str]:
    """The kinds that can be used here."""
    return sorted({*OWN, *(point.name for point in entry_points(group=GROUP))})


def _factory(kind: str) -> Callable[[str], System]:
    """What makes systems of a kind."""
    with sentence(f"systems of the kind {kind!r} cannot be used"):
        if kind in OWN:
            module, name = OWN[kind].split(":")
            return getattr(import_module(module), name)
        (point, *_) = entry_points(group=GROUP, name=kind)
        return point.load()
