"""The data sets a training command names, several as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechadapt.data import Utterance, load_utterances
from speechadapt.data.labels import read_labels
from speechadapt.errors import DataError


@dataclass(frozen=True)
class Data:
    """Utterances of one or several data sets.

    Attributes:
        utterances: In the order of the sets.
        labels: Of each utterance by id, where they were asked for.
    """

    utterances: list[Utterance]
    labels: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        seconds = sum(utterance.duration or 0.0 for utterance in self.utterances)
        return f"{len(self.utterances)} utterances, {seconds / 60:.1f} minutes"


def read_sets(paths: Sequence[str], labels: str | None = None) -> Data:
    """Read data sets.

    Args:
        paths: Kaldi data dirs or JSONL manifests.
        labels: Table or field of the labels; None = they are not wanted.

    Raises:
        DataError: One breaks its format, has no such labels, or an utterance is in two.
    """
    utterances: dict[str, Utterance] = {}
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        mine = load_utterances(path)
        for utterance in mine:
            if utterance.id in utterances:
                raise DataError(
                    f"{path}: utterance {utterance.id} is in an earlier data set too; "
                    "name each set once, and give ids a prefix of their own"
                )
            utterances[utterance.id] = utterance
        if labels is not None:
            found |= read_labels(path, labels, mine)
    return Data(list(utterances.values()), found)
