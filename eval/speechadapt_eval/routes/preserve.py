"""That adapting left the base as it was: weights, outputs off the route, transcripts, tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.routes.tensors import Tensor
from speechadapt_eval.statistics.bootstrap import Paired


@dataclass(frozen=True)
class Weights:
    """Checksums of the frozen tensors.

    Attributes:
        sha256: Tensor name to checksum before.
        changed: Tensor name to what is different afterwards.
        added: Names that are new afterwards, such as an adapter's; they do not count.
    """

    sha256: dict[str, str]
    changed: dict[str, str]
    added: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every tensor is there, byte for byte."""
        return not self.changed


@dataclass(frozen=True)
class Outputs:
    """Outputs of the base off the route, before and after.

    Attributes:
        arrays: How many were compared.
        numbers: How many numbers they hold.
        max_abs_difference: The largest; NaN where a number turned into none, or back.
        where: The array that has it; empty if there is no difference.
    """

    arrays: int
    numbers: int
    max_abs_difference: float
    where: str

    @property
    def holds(self) -> bool:
        """Whether there is no difference at all."""
        return self.max_abs_difference == 0.0


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of the base off the route, before and after.

    Attributes:
        utterances: How many were compared.
        different: Ids whose text is not the same, character by character.
    """

    utterances: int
    different: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all are the same."""
        return not self.different


@dataclass(frozen=True)
class Task:
    """A source task, the base against the adapted system.

    Attributes:
        name: Of the task.
        before: Error rate of the base, a share.
        after: Error rate of the adapted system.
        paired: Their difference.
        margin: How much worse is tolerated, a share.
        holds: Whether the whole interval lies below the margin.
    """

    name: str
    before: float
    after: float
    paired: Paired
    margin: float
    holds: bool


def compare_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Weights:
    """Compare every tensor of ``before`` with its namesake.

    Raises:
        EvalError: ``before`` has no tensor, or a file became shorter meanwhile.
    """
    if not before:
        raise EvalError("no tensor to compare: the file before has none")
    sums, changed = {}, {}
    bar = tqdm(before.items(), desc="checksums", unit="tensor", leave=False, disable=None)
    for name, old in bar:
        sums[name] = old.sha256()
        new = after.get(name)
        if new is None:
            changed[name] = "missing"
        elif (old.dtype, old.shape) != (new.dtype, new.shape):
            changed[name] = f"{old.dtype} {list(old.shape)} became {new.dtype} {list(new.shape)}"
        elif new.sha256() != sums[name]:
            changed[name] = "other numbers"
    return Weights(sums, changed, tuple(sorted(after.keys() - before.keys())))


def compare_outputs(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Outputs:
    """Compare arrays of the same names and shapes, e.g. encoder outputs by utterance.

    Raises:
        EvalError: Names or shapes differ, or there is nothing to compare.
    """
    if odd := before.keys() ^ after.keys():
        raise EvalError(f"outputs differ in their names ({some(odd)}): save the same ones twice")
    if not sum(array.size for array in before.values()):
        raise EvalError("no output to compare: the files hold no number")
    largest, where = 0.0, ""
    for name, old in before.items():
        new = after[name]
        if old.shape != new.shape:
            raise EvalError(
                f"output {name!r} is {list(old.shape)} before and {list(new.shape)} after: "
                "give the same audio to both"
            )
        difference = _difference(old, new)
        if math.isnan(difference) or difference > largest:
            largest, where = difference, name
        if math.isnan(difference):
            break
    return Outputs(len(before), sum(a.size for a in before.values()), largest, where)


def compare_transcripts(before: Mapping[str, str], after: Mapping[str, str]) -> Transcripts:
    """Compare raw texts by utterance id.

    Raises:
        EvalError: The ids differ, or there is none.
    """
    if odd := before.keys() ^ after.keys():
        raise EvalError(
            f"{len(odd)} utterances are in one of the two transcripts only ({some(odd)}): "
            "transcribe the same ones twice"
        )
    if not before:
        raise EvalError("no transcript to compare")
    different = (name for name, text in before.items() if text != after[name])
    return Transcripts(len(before), tuple(sorted(different)))


def _difference(old: np.ndarray, new: np.ndarray) -> float:
    if old.dtype == new.dtype and old.tobytes() == new.tobytes():
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.abs(old.astype(np.float64) - new.astype(np.float64)).max(initial=0.0))
