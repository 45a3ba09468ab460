"""CTC loss (Graves et al. 2006) over what can be heard of the references."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Backbone, Encoded
from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt.heads.ctc import CtcHead, spoken
from speechadapt.training.examples import Batch, Listener


class CtcObjective:
    """Turns references into tokens of a vocabulary, and states into a loss.

    Args:
        backbone: Says how many positions an utterance has.
        head: Whose vocabulary is used.
        trailing_silence: Seconds after each utterance.
    """

    listener: Listener | None = None

    def __init__(self, backbone: Backbone, head: CtcHead, trailing_silence: float):
        self.backbone, self.head, self.trailing_silence = backbone, head, trailing_silence

    def tokens(self, utterance: Utterance) -> list[int]:
        """Indices of an utterance's tokens.

        Raises:
            DataError: No transcript, nothing to hear in it, or a character that the vocabulary
                does not have.
        """
        if utterance.text is None:
            raise DataError(f"utterance {utterance.id}: no transcript; training needs one")
        text = spoken(utterance.text)
        if not text:
            raise DataError(
                f"utterance {utterance.id}: nothing of its transcript {utterance.text!r} can be "
                "heard; leave it out"
            )
        tokens = self.head.config.spell(text)
        index = self.head.config.index
        if unknown := sorted(set(tokens) - set(index)):
            raise DataError(
                f"utterance {utterance.id}: the vocabulary has no {' '.join(unknown)}; train on "
                "data that have it, or leave the utterance out"
            )
        return [index[token] for token in tokens]

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` also where the audio is too short for the transcript."""
        tokens = self.tokens(utterance)
        if utterance.duration is None:
            return
        # A blank has to stand between two equal tokens.
        needed = len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
        seconds = utterance.duration + self.trailing_silence
        if needed * self.backbone.position_seconds > seconds:
            raise DataError(
                f"utterance {utterance.id}: {seconds:.2f} s have no room for the {len(tokens)} "
                f"{'pieces' if self.head.config.pieces else 'characters'} of its transcript; is "
                "the recording cut short?"
            )

    def targets(self, batch: Batch) -> list[list[int]]:
        """Indices of each utterance's tokens."""
        return [self.tokens(utterance) for utterance in batch.utterances]

    def count(self, targets: list[list[int]]) -> int:
        """Tokens of all utterances."""
        return sum(map(len, targets))

    def logits(self, encoded: Encoded, targets: list[list[int]]) -> Tensor:
        """Log-probabilities ``[batch, positions, tokens]``."""
        return self.head.log_probs(encoded)

    def loss_of(self, logits: Tensor, encoded: Encoded, targets: list[list[int]]) -> Tensor:
        """CTC loss of :meth:`logits`, summed over the batch, in nats."""
        device = logits.device
        return F.ctc_loss(
            logits.transpose(0, 1),
            torch.tensor([token for tokens in targets for token in tokens], device=device),
            encoded.lengths,
            torch.tensor([len(tokens) for tokens in targets], device=device),
            blank=self.head.config.blank,
            reduction="sum",
            zero_infinity=True,
        )

    def loss(self, encoded: Encoded, targets: list[list[int]]) -> Tensor:
        """CTC loss summed over the batch, in nats."""
        return self.loss_of(self.logits(encoded, targets), encoded, targets)
