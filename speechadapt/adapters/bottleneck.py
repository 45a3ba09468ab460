"""Bottleneck adapters (Houlsby et al. 2019, Pfeiffer et al. 2020, parallel: He et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import (
    Family,
    FusedBatch,
    SiteBatch,
    Source,
    beside_only,
    placed,
    uniform,
)
from speechadapt.backbones.base import Site
from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.bottleneck import BottleneckWeights, bottleneck
from speechadapt_kernels.bottleneck.folded import FoldedBottleneck, fold
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.layout import fits


@dataclass(frozen=True)
class BottleneckConfig(AdapterConfig):
    """Down projection, activation, up projection.

    A site of width D has ``2·D·bottleneck + bottleneck + D`` parameters, ``2·D`` more with the
    inner LayerNorm. That and GELU are as Thomas et al. 2022 (*Efficient Adapter Transfer of
    Self-Supervised Speech Models*) have them; Houlsby, Pfeiffer and He et al. have no LayerNorm
    inside an adapter.

    Attributes:
        bottleneck: Width between the two projections.
        activation: ``gelu``, ``relu`` or ``silu``.
        placement: ``sequential`` reads the sub-layer's output; ``parallel`` reads what the
            sub-layer itself reads (the normalised state); ``parallel_residual`` that state before
            it is normalised, as AdapterHub's parallel adapters do.
        layer_norm: A LayerNorm of its own before the down projection.
        scale: Factor of the adapter's output.
        dropout: Probability on the bottleneck while training.
    """

    method: ClassVar[str] = "bottleneck"
    width: ClassVar[str] = "bottleneck"

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
        placements = ("sequential", "parallel", "parallel_residual")
        self.check(self.placement in placements, "placement", " or ".join(placements))
        self.check(self.scale != 0, "scale", "another number: with 0 nothing would be learnt")
        self.check(0.0 <= self.dropout < 1.0, "dropout", "0 … below 1")


class Bottleneck(Family):
    """The family of :class:`BottleneckConfig`."""

    width_axes: ClassVar = {"down.weight": 0, "down.bias": 0, "up.weight": 1}

    def source(self, config: BottleneckConfig, point: str) -> Source:
        """The sub-layer's output (sequential) or its input (the parallel placements)."""
        return placed(config.placement)

    def refuses(self, config: BottleneckConfig, site: Site) -> str | None:
        """A parallel adapter needs a sub-layer to be parallel to."""
        return beside_only(config.placement, site)

    def init(
        self, config: BottleneckConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Down projection as ``nn.Linear`` starts it; up projection zero, so nothing changes."""
        dim = site.dim
        tensors = {
            "down.weight": uniform((config.bottleneck, dim), dim, generator),
            "down.bias": torch.zeros(config.bottleneck),
            "up.weight": torch.zeros(dim, config.bottleneck),
            "up.bias": torch.zeros(dim),
        }
        if config.layer_norm:
            tensors |= {"norm.weight": torch.ones(dim), "norm.bias": torch.zeros(dim)}
        return tensors

    def apply(
        self, config: BottleneckConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target + scale * up(act(down(norm(source))))``."""
        return apply_bottleneck(config, weights, batch)

    def fold(
        self, config: BottleneckConfig, weights: Mapping[str, Tensor], dtype: torch.dtype
    ) -> FoldedBottleneck:
        """The norm in the down projection."""
        return fold(_stacked(weights), dtype)

    def fused(self, config: BottleneckConfig, batch: FusedBatch) -> Tensor | None:
        """One operator for norm, projections and sum; not while dropout is on."""
        if (config.dropout and batch.train) or not fits(batch.source, batch.target, batch.width):
            return None
        base = None if batch.source is batch.target else batch.target
        return fused_bottleneck(
            batch.source, batch.folded(), batch.slots, config.activation, config.scale, base
        )


def apply_bottleneck(
    config: BottleneckConfig,
    weights: Mapping[str, Tensor],
    batch: SiteBatch,
    gate: Tensor | None = None,
) -> Tensor:
    """The operator on tensors as they are called on disk; ``gate`` as the operator takes it."""
    dropout = config.dropout if batch.train else 0.0
    return bottleneck(
        batch.source,
        batch.target,
        _stacked(weights),
        config.activation,
        config.scale,
        dropout,
        gate,
    )


def _stacked(weights: Mapping[str, Tensor]) -> BottleneckWeights:
    return BottleneckWeights(
        down=weights["down.weight"],
        down_bias=weights["down.bias"],
        up=weights["up.weight"],
        up_bias=weights["up.bias"],
        norm_weight=weights.get("norm.weight"),
        norm_bias=weights.get("norm.bias"),
    )
