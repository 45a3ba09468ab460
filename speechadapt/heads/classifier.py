"""Classifiers: one answer for a whole utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.heads.head import Head, linear


@dataclass(frozen=True)
class ClassifierConfig:
    """Labels and how an utterance becomes one vector.

    Attributes:
        labels: What each output stands for, by index.
        multi_label: Whether several may be true at once: sigmoid instead of softmax.
        pooling: ``mean`` over the valid positions, or ``summary``: over AST's two summary tokens.
        epsilon: Of the LayerNorm.
    """

    labels: tuple[str, ...]
    multi_label: bool = False
    pooling: str = "mean"
    epsilon: float = 1e-5


class ClassifierHead(Head):
    """Optional LayerNorm (``norm.weight``, ``norm.bias``), then one linear layer (``proj.weight``
    ``[labels, dim]``, ``proj.bias``)."""

    kind: ClassVar[str] = "classifier"
    config: ClassifierConfig

    @classmethod
    def fresh(
        cls, config: ClassifierConfig, dim: int, generator: torch.Generator
    ) -> ClassifierHead:
        """Every label about as likely."""
        return cls(config, linear(len(config.labels), dim, generator))

    def logits(self, encoded: Encoded) -> Tensor:
        """Logits ``[batch, labels]``."""
        pooled = self._pool(encoded)
        if "norm.weight" in self.tensors:
            weight, bias = self.tensors["norm.weight"], self.tensors["norm.bias"]
            pooled = F.layer_norm(pooled, pooled.shape[-1:], weight, bias, self.config.epsilon)
        return F.linear(pooled, self.tensors["proj.weight"], self.tensors["proj.bias"])

    def probabilities(self, encoded: Encoded) -> Tensor:
        """Probabilities ``[batch, labels]``; they sum to 1 unless several labels may be true."""
        logits = self.logits(encoded)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.sigmoid() if self.config.multi_label else logits.softmax(-1)

    def _pool(self, encoded: Encoded) -> Tensor:
        states, lengths = encoded.states, encoded.lengths
        if self.config.pooling == "summary":
            return (states[:, 0] + states[:, 1]) / 2
        valid = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return states.masked_fill(~valid[..., None], 0.0).sum(1) / lengths[:, None]
