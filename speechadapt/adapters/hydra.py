"""Hydra (Kim et al. 2023, section 3): low-rank branches beside and behind a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, Layer, SiteBatch, Source, linear_only, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.stacked import add_linear, linear


@dataclass(frozen=True)
class HydraConfig(AdapterConfig):
    """``y + scale * (parallel(x) + sequential(y))`` with ``y = W x + b``, both branches linear.

    Both merge into the layer. A site from I to O inputs has ``rank · (I + O)`` parameters in the
    parallel branch and ``2 · rank · O`` in the sequential one.

    Attributes:
        rank: Width of each branch.
        scale: Factor of both.
    """

    method: ClassVar[str] = "hydra"
    width: ClassVar[str] = "rank"

    points: tuple[str, ...] = ("attn.out", "ffn.out")
    rank: int = 8
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.rank > 0, "rank", "1 or more")
        self.check(self.scale != 0, "scale", "another number: with 0 nothing would be learnt")


class Hydra(Family):
    """The family of :class:`HydraConfig`."""

    linear: ClassVar = True
    width_axes: ClassVar = {
        "parallel.down.weight": 0,
        "parallel.up.weight": 1,
        "sequential.down.weight": 0,
        "sequential.up.weight": 1,
    }

    def source(self, config: HydraConfig, point: str) -> Source:
        """What the linear layer reads; its output is the target."""
        return "leaf_input"

    def refuses(self, config: HydraConfig, site: Site) -> str | None:
        """Linear layers only."""
        return linear_only(site)

    def init(
        self, config: HydraConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Both down projections random, both up projections zero."""
        into, out, rank = site.input_dim, site.dim, config.rank
        return {
            "parallel.down.weight": uniform((rank, into), into, generator),
            "parallel.up.weight": torch.zeros(out, rank),
            "sequential.down.weight": uniform((rank, out), out, generator),
            "sequential.up.weight": torch.zeros(out, rank),
        }

    def merge(
        self, config: HydraConfig, point: str, tensors: Mapping[str, Tensor], layer: Layer
    ) -> Layer:
        """``W + scale * (P + S @ W)``, and the sequential branch acts on the bias too."""
        beside = tensors["parallel.up.weight"] @ tensors["parallel.down.weight"]
        behind = tensors["sequential.up.weight"] @ tensors["sequential.down.weight"]
        weight = layer.weight + config.scale * (beside + behind @ layer.weight)
        bias = None if layer.bias is None else layer.bias + config.scale * behind @ layer.bias
        return Layer(weight, bias)

    def apply(self, config: HydraConfig, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """Both branches, added to the layer's output."""
        y = batch.target
        for branch, x in (("parallel", batch.source), ("sequential", batch.target)):
            hidden = linear(x, weights[f"{branch}.down.weight"])
            y = add_linear(y, hidden, weights[f"{branch}.up.weight"], config.scale)
        return y
