"""Labels of whole utterances: cross entropy, or binary cross entropy where several may be true."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt.heads.classifier import ClassifierHead
from speechadapt.training.examples import Batch, Listener


class ClassifyObjective:
    """Turns labels into indices, and states into a loss.

    Args:
        head: Whose labels are used.
        labels: Of each utterance, by id.
    """

    listener: Listener | None = None

    def __init__(self, head: ClassifierHead, labels: Mapping[str, tuple[str, ...]]):
        self.head, self.labels = head, labels
        self._index = {label: index for index, label in enumerate(head.config.labels)}

    def indices(self, utterance: Utterance) -> list[int]:
        """Indices of an utterance's labels.

        Raises:
            DataError: A label that the head does not have, or none or several where it is to be
                one.
        """
        labels = self.labels[utterance.id]
        if unknown := [label for label in labels if label not in self._index]:
            known = ", ".join(self.head.config.labels[:10])
            more = ", …" if len(self._index) > 10 else ""
            raise DataError(
                f"utterance {utterance.id}: the label {unknown[0]!r} is none that is learnt "
                f"({known}{more}); correct it, or leave the utterance out"
            )
        if len(labels) != 1 and not self.head.config.multi_label:
            raise DataError(
                f"utterance {utterance.id}: has {len(labels)} labels; give it one, or train with "
                "--multi-label"
            )
        return [self._index[label] for label in labels]

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` where :meth:`indices` does."""
        self.indices(utterance)

    def targets(self, batch: Batch) -> Tensor:
        """Indices ``[batch]``; with several labels 0 or 1 for each, ``[batch, labels]``."""
        rows = [self.indices(utterance) for utterance in batch.utterances]
        if not self.head.config.multi_label:
            return torch.tensor(rows)[:, 0]
        wanted = torch.zeros(len(rows), len(self._index))
        for row, indices in zip(wanted, rows, strict=True):
            row[indices] = 1.0
        return wanted

    def count(self, targets: Tensor) -> int:
        """Utterances; with several labels, times the labels there are."""
        return targets.numel()

    def loss(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """Cross entropy of the labels, summed, in nats."""
        logits = self.head.logits(encoded)
        targets = targets.to(logits.device)
        if self.head.config.multi_label:
            return F.binary_cross_entropy_with_logits(
                logits, targets.to(logits.dtype), reduction="sum"
            )
        return F.cross_entropy(logits, targets, reduction="sum")
