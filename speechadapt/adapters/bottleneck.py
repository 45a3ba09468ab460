"""Bottleneck adapters (Houlsby et al. 2019, Pfeiffer et al. 2020, parallel: He et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt_kernels.bottleneck import (
    ACTIVATIONS,
    BottleneckWeights,
    bottleneck,
    mixed_bottleneck,
)


@dataclass(frozen=True)
class BottleneckConfig(AdapterConfig):
    """Down projection, activation, up projection.

    A site of width D has ``2·D·bottleneck + bottleneck + D`` parameters, ``2·D`` more with the
    inner LayerNorm.

    Attributes:
        bottleneck: Width between the two projections.
        activation: ``gelu``, ``relu`` or ``silu``.
        placement: ``sequential`` reads the sub-layer's output; ``parallel`` reads what the
            sub-layer itself reads (the normalised state).
        layer_norm: A LayerNorm of its own before the down projection.
        scale: Factor of the adapter's output.
        dropout: Probability on the bottleneck while training.
    """

    method: ClassVar[str] = "bottleneck"

    bottleneck: int = 64
    activation: str = "gelu"
    placement: str = "sequential"
    layer_norm: bool = True
    scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.bottleneck > 0, "bottleneck", "a width of 1 or more")
        self.check(self.activation in ACTIVATIONS, "activation", " or ".join(ACTIVATIONS))
        placements = ("sequential", "parallel")
        self.check(self.placement in placements, "placement", " or ".join(placements))
        self.check(math.isfinite(self.scale), "scale", "a finite number")
        self.check(0.0 <= self.dropout < 1.0, "dropout", "0 … below 1")
        parallel_out = self.placement == "parallel" and "out" in self.points
        self.check(
            not parallel_out, "points", "sub-layers such as ffn.out with the parallel placement"
        )


class Bottleneck:
    """The family of :class:`BottleneckConfig`."""

    def source(self, config: BottleneckConfig) -> str:
        """``output`` (sequential) or ``input`` (parallel)."""
        return "output" if config.placement == "sequential" else "input"

    def init(
        self, config: BottleneckConfig, dim: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Down projection as ``nn.Linear`` starts it; up projection zero, so nothing changes."""
        bound = 1.0 / math.sqrt(dim)
        down = torch.rand(config.bottleneck, dim, generator=generator) * (2 * bound) - bound
        tensors = {
            "down.weight": down,
            "down.bias": torch.zeros(config.bottleneck),
            "up.weight": torch.zeros(dim, config.bottleneck),
            "up.bias": torch.zeros(dim),
        }
        if config.layer_norm:
            tensors |= {"norm.weight": torch.ones(dim), "norm.bias": torch.zeros(dim)}
        return tensors

    def apply(
        self,
        config: BottleneckConfig,
        tensors: Mapping[str, Tensor],
        source: Tensor,
        base: Tensor,
        train: bool,
    ) -> Tensor:
        """One adapter for all rows."""
        dropout = config.dropout if train else 0.0
        weights = _weights(tensors)
        return bottleneck(source, base, weights, config.activation, config.scale, dropout)

    def apply_mixed(
        self,
        config: BottleneckConfig,
        tensors: list[Mapping[str, Tensor]],
        slots: Tensor,
        source: Tensor,
        base: Tensor,
        train: bool,
    ) -> Tensor:
        """Each row its own adapter."""
        dropout = config.dropout if train else 0.0
        weights = _weights({key: torch.stack([t[key] for t in tensors]) for key in tensors[0]})
        return mixed_bottleneck(
            source, base, weights, slots, config.activation, config.scale, dropout
        )


def _weights(tensors: Mapping[str, Tensor]) -> BottleneckWeights:
    return BottleneckWeights(
        down=tensors["down.weight"],
        down_bias=tensors["down.bias"],
        up=tensors["up.weight"],
        up_bias=tensors["up.bias"],
        norm_weight=tensors.get("norm.weight"),
        norm_bias=tensors.get("norm.bias"),
    )
