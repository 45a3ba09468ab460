"""Invertible adapters: NICE coupling (Dinh et al. 2015) of what the first layer reads, as in MAD-X
(Pfeiffer et al. 2020, section 3.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, SiteBatch, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.stacked import linear

_HALVES = ("first", "second")


@dataclass(frozen=True)
class InvertibleConfig(AdapterConfig):
    """Each half of the channels is shifted by what a bottleneck makes of the other half.

    MAD-X undoes it before the output embeddings; what these encoders give has no such inverse, so
    nothing is undone.

    ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)``. A site of width D has
    ``2·D·bottleneck + 2·bottleneck + D`` parameters.

    Attributes:
        bottleneck: Width inside F and G.
        activation: ``gelu``, ``relu`` or ``silu``.
    """

    method: ClassVar[str] = "invertible"
    width: ClassVar[str] = "bottleneck"

    points: tuple[str, ...] = ("embed",)
    stacks: tuple[str, ...] | None = ("encoder",)
    bottleneck: int = 64
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.bottleneck > 0, "bottleneck", "a width of 1 or more")
        self.check(self.activation in ACTIVATIONS, "activation", " or ".join(ACTIVATIONS))


class Invertible(Family):
    """The family of :class:`InvertibleConfig`."""

    width_axes: ClassVar = {
        f"{half}.{name}": axis
        for half in _HALVES
        for name, axis in (("down.weight", 0), ("down.bias", 0), ("up.weight", 1))
    }

    def refuses(self, config: InvertibleConfig, site: Site) -> str | None:
        """The channels must split in two."""
        return "its width is odd" if site.dim % 2 else None

    def init(
        self, config: InvertibleConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Both up projections are zero."""
        half = site.dim // 2
        tensors: dict[str, Tensor] = {}
        for name in _HALVES:
            tensors |= {
                f"{name}.down.weight": uniform((config.bottleneck, half), half, generator),
                f"{name}.down.bias": torch.zeros(config.bottleneck),
                f"{name}.up.weight": torch.zeros(half, config.bottleneck),
                f"{name}.up.bias": torch.zeros(half),
            }
        return tensors

    def apply(
        self, config: InvertibleConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """The coupling."""
        first, second = batch.target.chunk(2, -1)
        first = first + _shift(config, weights, "first", second)
        second = second + _shift(config, weights, "second", first)
        return torch.cat((first, second), -1)

    def invert(self, config: InvertibleConfig, weights: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """What :meth:`apply` made ``y`` (``[adapters, rows, frames, dim]``) from."""
        first, second = y.chunk(2, -1)
        second = second - _shift(config, weights, "second", first)
        first = first - _shift(config, weights, "first", second)
        return torch.cat((first, second), -1)


def _shift(config: InvertibleConfig, weights: Mapping[str, Tensor], half: str, x: Tensor) -> Tensor:
    hidden = linear(x, weights[f"{half}.down.weight"], weights[f"{half}.down.bias"])
    hidden = ACTIVATIONS[config.activation](hidden)
    return linear(hidden, weights[f"{half}.up.weight"], weights[f"{half}.up.bias"])
