"""Regressors: a number for a whole utterance, such as a mean opinion score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.errors import ConfigError
from speechadapt.heads.pooled import PooledHead, check_pooling, fresh_tensors
from speechadapt.typed import check_types


@dataclass(frozen=True)
class RegressorConfig:
    """What a number stands for, and how an utterance becomes one vector.

    Attributes:
        value: What it is called, e.g. ``mos``.
        mean: Of the values it learns from: what it says at first.
        scale: Their standard deviation, in which it counts.
        pooling: ``mean`` over the valid positions, or ``summary``: over AST's two summary tokens.
        epsilon: Of the LayerNorm.
        layers: States it reads: the first layer's input and every layer's output; 0 = those of the
            last layer alone.
    """

    value: str
    mean: float = 0.0
    scale: float = 1.0
    pooling: str = "mean"
    epsilon: float = 1e-5
    layers: int = 0

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "head")
        check_pooling(self.pooling)
        if not (math.isfinite(self.mean) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(
                f"head: mean {self.mean} and scale {self.scale} cannot be used: give finite "
                "numbers, the scale above 0"
            )


class RegressorHead(PooledHead):
    """The head of :class:`RegressorConfig`: ``mean + scale * output``."""

    kind: ClassVar[str] = "regressor"
    config: RegressorConfig

    @classmethod
    def fresh(cls, config: RegressorConfig, dim: int, generator: torch.Generator) -> RegressorHead:
        """It says the mean, whatever it hears."""
        tensors = fresh_tensors(config, 1, dim, generator)
        return cls(config, {**tensors, "proj.weight": torch.zeros(1, dim)})

    def values(self, encoded: Encoded) -> Tensor:
        """Predictions ``[batch]``."""
        return self.config.mean + self.config.scale * self.outputs(encoded)[:, 0]
