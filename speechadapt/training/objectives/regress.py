"""A number for each utterance, such as a mean opinion score: mean squared error."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.data import Utterance
from speechadapt.data.labels import number
from speechadapt.heads.regressor import RegressorHead
from speechadapt.training.examples import Batch, Listener


class RegressObjective:
    """Squared difference of what the head says and what it should, in units of its scale.

    Args:
        head: Says the numbers.
        labels: Of each utterance, by id: one number each.
    """

    listener: Listener | None = None

    def __init__(self, head: RegressorHead, labels: Mapping[str, tuple[str, ...]]):
        self.head, self.labels = head, labels

    def value(self, utterance: Utterance) -> float:
        """What an utterance should get.

        Raises:
            DataError: Its label is no number.
        """
        return number(self.labels[utterance.id], f"utterance {utterance.id}")

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` where :meth:`value` does."""
        self.value(utterance)

    def targets(self, batch: Batch) -> Tensor:
        """Values ``[batch]``."""
        return torch.tensor([self.value(u) for u in batch.utterances], dtype=torch.float64)

    def count(self, targets: Tensor) -> int:
        """Utterances."""
        return len(targets)

    def loss(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """Squared error of ``(value - mean) / scale``, summed."""
        said = self.head.values(encoded)
        error = (said - targets.to(said)) / self.head.config.scale
        return error.square().sum()
