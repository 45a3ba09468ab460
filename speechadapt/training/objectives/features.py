"""Clean features from noisy speech: an adapter learns without transcripts.

The model in training hears speech with noise mixed in; what it should make of it is what the frozen
encoder makes of the same speech without (Miipher-2, Karita et al. 2025, section 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from speechadapt.backbones.base import Backbone, Encoded
from speechadapt.call import Call, running
from speechadapt.data import Utterance
from speechadapt.features import Features
from speechadapt.training.examples import Batch, Listener


class FeaturesObjective:
    """L1 + L2 + spectral convergence between states with the adapter and clean ones without.

    Of each utterance, over its valid positions: mean absolute difference, mean squared difference,
    and the Frobenius norm of the difference divided by that of the clean states.

    Args:
        backbone: The frozen encoder, which also hears the clean speech.
        trailing_silence: Seconds after each utterance.
    """

    def __init__(self, backbone: Backbone, trailing_silence: float):
        self.backbone = backbone
        self.listener: Listener | None = Listener(backbone, trailing_silence)

    def check(self, utterance: Utterance) -> None:
        """Nothing is asked of an utterance: it needs no transcript."""

    def targets(self, batch: Batch) -> Features:
        """The clean speech; its states are made when they are compared."""
        assert batch.clean is not None
        return batch.clean

    def count(self, targets: Features) -> int:
        """Utterances."""
        return len(targets)

    def loss(self, encoded: Encoded, targets: Features) -> Tensor:
        """Summed over the utterances."""
        plain = Call(stacks=((),) * len(targets), key_lengths=self.backbone.key_lengths(targets))
        with torch.no_grad(), running(plain):
            clean = self.backbone.encode(targets)
        return distance(encoded.states, clean.states, clean.lengths)


def distance(states: Tensor, clean: Tensor, lengths: Tensor) -> Tensor:
    """L1 + L2 + spectral convergence, summed over the batch.

    Args:
        states: ``[batch, positions, dim]``.
        clean: What they should be, of the same shape.
        lengths: Valid positions, ``[batch]``.
    """
    valid = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
    precise = torch.promote_types(states.dtype, torch.float32)
    clean = clean.to(precise).masked_fill(~valid[..., None], 0.0).flatten(1)
    states = states.to(precise).masked_fill(~valid[..., None], 0.0).flatten(1)
    difference, count = states - clean, lengths * (states.shape[1] // valid.shape[1])
    squares = difference.square().sum(1)
    convergence = torch.linalg.vector_norm(difference, dim=1) / torch.linalg.vector_norm(
        clean, dim=1
    )
    return (difference.abs().sum(1) / count + squares / count + convergence).sum()
