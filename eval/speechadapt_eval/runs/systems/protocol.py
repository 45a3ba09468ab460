"""What a kind of system must offer to be run.

A kind is registered as an entry point of the group ``speechadapt_eval.systems``, its name the word
before the colon of ``--system KIND:ARGUMENT``. It is any callable that takes the argument and
returns a ``System``; nothing of this package need be imported for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip

Answer = str | Mapping[str, Any]
"""The text, or an object with ``text`` and further fields of the row, e.g. ``adapter``."""


@dataclass(frozen=True)
class Settings:
    """What the user set for all systems.

    Attributes:
        jobs: Clips in flight at a time, where the system is ``concurrent``.
        timeout: Seconds that one clip may take, where that can be enforced.
    """

    jobs: int = 1
    timeout: float = 600.0


class System(Protocol):
    """A system that is not open yet. Making one must be cheap and load nothing."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that its answers depend on, as JSON: versions, settings, checksums of files.

        Cached answers are used as long as this stays the same.
        """

    def open(self, settings: Settings) -> OpenSystem:
        """Load it. Any error means that nothing can be transcribed."""


class OpenSystem(Protocol):
    """A system that is ready to transcribe.

    It may have further attributes:
        concurrent (bool): ``transcribe`` may run in several threads (default: no).
        warmup (int): Clips to transcribe before the clock counts (default: 1).
        remote (bool): It computes elsewhere, so our memory says nothing (default: no).
        transcribe_batch: A function of a list of clips that returns an answer for each, in their
            order; used unless latencies are wanted.
    """

    facts: Mapping[str, Any]
    """``parameters``, ``trainable`` and ``threads``, as far as they are known."""

    def transcribe(self, clip: Clip) -> Answer:
        """Transcribe one clip. An exception is this clip's failure alone, unless it is a
        ``SystemDown``."""

    def close(self) -> None:
        """Give back what was opened."""


class SystemDown(EvalError):
    """No further clip can be transcribed, e.g. because the server has gone."""


class Closed:
    """Base of systems that have nothing to give back and nothing to tell."""

    facts: Mapping[str, Any] = {}

    def close(self) -> None:
        """Nothing to do."""


def batches(system: OpenSystem) -> bool:
    """Whether it can transcribe several clips together."""
    return callable(getattr(system, "transcribe_batch", None))


def transcribe_all(system: OpenSystem, clips: Sequence[Clip]) -> Sequence[Answer]:
    """Answers of a batch.

    Raises:
        ValueError: There are more or fewer answers than clips.
    """
    answers = list(system.transcribe_batch(clips))  # type: ignore[attr-defined]
    if len(answers) != len(clips):
        raise ValueError(f"{len(answers)} answers for {len(clips)} clips")
    return answers
