"""What every objective offers the training loop."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.data import Utterance
from speechadapt.training.examples import Batch, Listener


class Objective(Protocol):
    """Turns references into targets, and encoder states into a loss.

    Attributes:
        listener: Who hears each utterance beside the model in training; None = nobody.
    """

    listener: Listener | None

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` about an utterance that cannot be learnt."""
        ...

    def targets(self, batch: Batch) -> Any:
        """What a batch should become."""
        ...

    def count(self, targets: Any) -> int:
        """Symbols, labels or utterances in the targets; the loss is reported for each."""
        ...

    def loss(self, encoded: Encoded, targets: Any) -> Tensor:
        """Loss summed over what :meth:`count` counts. Needs the current call of the batch."""
        ...
