"""Language adapters of MMS (Pratap et al. 2023, *Scaling Speech Technology to 1,000+ Languages*,
section 4.4): a checkpoint has one in each layer, and those of another language take its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.bottleneck import BottleneckConfig, apply_bottleneck
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, SiteBatch, Source
from speechadapt.backbones.base import Site

LAYERS = {"norm": "norm", "linear_1": "down", "linear_2": "up"}
"""The layers of the checkpoint's adapter, as transformers calls them, and of ours."""


@dataclass(frozen=True)
class MmsConfig(AdapterConfig):
    """LayerNorm, down projection, ReLU, up projection, instead of the checkpoint's own.

    A fresh one is a copy of the checkpoint's, and so changes no output bit although its up
    projection is not zero. The width r is the checkpoint's (``adapter_attn_dim``): ``2·D·r + r +
    3·D`` parameters at a site of width D.
    """

    method: ClassVar[str] = "mms"

    points: tuple[str, ...] = ("language",)


class Mms(Family):
    """The family of :class:`MmsConfig`."""

    copies: ClassVar = True
    _arithmetic: ClassVar = BottleneckConfig(activation="relu")

    def source(self, config: MmsConfig, point: str) -> Source:
        """What the checkpoint's own adapter reads."""
        return "leaf_input"

    def refuses(self, config: MmsConfig, site: Site) -> str | None:
        """Only where there is one to take the place of."""
        if site.point != "language":
            return "it takes the place of an adapter that the checkpoint itself has, at language"
        return None

    def init(self, config: MmsConfig, site: Site, generator: torch.Generator) -> dict[str, Tensor]:
        """The checkpoint's own."""
        return {
            f"{ours}.{part}": site.leaf.get_parameter(f"{theirs}.{part}").detach().clone()
            for theirs, ours in LAYERS.items()
            for part in ("weight", "bias")
        }

    def apply(self, config: MmsConfig, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """``up(relu(down(norm(source))))``; what the checkpoint's own made is dropped."""
        nothing = replace(batch, target=batch.target.new_zeros(()))
        return apply_bottleneck(self._arithmetic, weights, nothing)
