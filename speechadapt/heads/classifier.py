"""Classifiers: labels of a whole utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.errors import ConfigError
from speechadapt.heads.pooled import PooledHead, check_pooling, fresh_tensors
from speechadapt.typed import check_types


@dataclass(frozen=True)
class ClassifierConfig:
    """Labels and how an utterance becomes one vector.

    Attributes:
        labels: What each output stands for, by index.
        multi_label: Whether several may be true at once: sigmoid instead of softmax.
        pooling: ``mean`` over the valid positions, or ``summary``: over AST's two summary tokens.
        epsilon: Of the LayerNorm.
        layers: States it reads: the first layer's input and every layer's output; 0 = those of the
            last layer alone.
    """

    labels: tuple[str, ...]
    multi_label: bool = False
    pooling: str = "mean"
    epsilon: float = 1e-5
    layers: int = 0

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "head")
        check_pooling(self.pooling)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"head: {len(self.labels)} labels cannot be used: give each once")


class ClassifierHead(PooledHead):
    """The head of :class:`ClassifierConfig`."""

    kind: ClassVar[str] = "classifier"
    config: ClassifierConfig

    @classmethod
    def fresh(
        cls, config: ClassifierConfig, dim: int, generator: torch.Generator
    ) -> ClassifierHead:
        """Every label about as likely."""
        return cls(config, fresh_tensors(config, len(config.labels), dim, generator))

    def logits(self, encoded: Encoded) -> Tensor:
        """Logits ``[batch, labels]``."""
        return self.outputs(encoded)

    def probabilities(self, encoded: Encoded) -> Tensor:
        """Probabilities ``[batch, labels]``; they sum to 1 unless several labels may be true."""
        logits = self.logits(encoded)
        return logits.sigmoid() if self.config.multi_label else logits.softmax(-1)
