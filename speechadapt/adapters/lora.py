"""LoRA (Hu et al. 2022, section 4.1), rank-stabilised (Kalajdzievski 2023), with PiSSA start (Meng
et al. 2024, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import (
    Family,
    FusedBatch,
    Layer,
    SiteBatch,
    Source,
    linear_only,
    uniform,
)
from speechadapt.backbones.base import Site
from speechadapt_kernels.bottleneck.folded import FoldedBottleneck
from speechadapt_kernels.layout import fits
from speechadapt_kernels.lora.operator import fold_lora, fused_lora
from speechadapt_kernels.stacked import add_linear, linear


@dataclass(frozen=True)
class LoraConfig(AdapterConfig):
    """A product of two thin matrices beside a linear layer: ``W x + scale * up(down(x))``.

    A site from I to O inputs has ``rank · (I + O)`` parameters. The paper has it at queries and
    values of models without cross-attention; where there is one it goes there too, as in PEFT and
    AdapterHub.

    Attributes:
        rank: Width between the two matrices.
        alpha: The product is scaled by ``alpha / rank``.
        rank_stabilized: Scale by ``alpha / sqrt(rank)`` instead, which keeps wide ones learning.
        dropout: Probability on the input while training.
        start: ``zero`` begins with the up projection at zero. ``pissa`` begins with the layer's own
            principal components: what changes them is learnt, so the start changes nothing either;
            it stores the components too, twice the size.
    """

    method: ClassVar[str] = "lora"
    width: ClassVar[str] = "rank"

    points: tuple[str, ...] = ("*.q", "*.v")
    rank: int = 8
    alpha: float = 16.0
    rank_stabilized: bool = False
    dropout: float = 0.0
    start: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.rank > 0, "rank", "1 or more")
        self.check(self.alpha != 0, "alpha", "another number: with 0 nothing would be learnt")
        self.check(0.0 <= self.dropout < 1.0, "dropout", "0 … below 1")
        self.check(self.start in ("zero", "pissa"), "start", "zero or pissa")

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    @property
    def computation(self) -> tuple[Any, ...]:
        """The factor instead of what it is made from: ranks may differ in one operator."""
        return (self.method, self.scale, self.dropout, self.start)


class Lora(Family):
    """The family of :class:`LoraConfig`."""

    linear: ClassVar = True
    width_axes: ClassVar = {"down.weight": 0, "up.weight": 1, "start.down": 0, "start.up": 1}
    buffers: ClassVar = frozenset({"start.down", "start.up"})

    def source(self, config: LoraConfig, point: str) -> Source:
        """What the linear layer reads."""
        return "leaf_input"

    def refuses(self, config: LoraConfig, site: Site) -> str | None:
        """Linear layers only; a PiSSA start has no more components than the layer."""
        if (reason := linear_only(site)) is None and config.start == "pissa":
            most = min(site.dim, site.input_dim)
            if config.rank > most:
                return f"rank is {config.rank}, but with the start pissa at most {most} here"
        return reason

    def init(self, config: LoraConfig, site: Site, generator: torch.Generator) -> dict[str, Tensor]:
        """Down projection random and up zero, or both from the layer's largest singular values."""
        if config.start == "pissa":
            assert isinstance(site.leaf, nn.Linear)
            down, up = principal(site.leaf.weight, config.rank)
            down, up = down / config.scale, up
            return {
                "down.weight": down,
                "up.weight": up,
                "start.down": down.clone(),
                "start.up": up.clone(),
            }
        shape = (config.rank, site.input_dim)
        return {
            "down.weight": uniform(shape, site.input_dim, generator),
            "up.weight": torch.zeros(site.dim, config.rank),
        }

    def blank(self, config: LoraConfig, site: Site) -> dict[str, Tensor]:
        """Without the decomposition of a weight, which is there and not on ``meta``."""
        tensors = super().blank(replace(config, start="zero"), site)
        if config.start == "pissa":
            tensors |= {f"start.{part}": tensors[f"{part}.weight"] for part in ("down", "up")}
        return tensors

    def merge(
        self, config: LoraConfig, point: str, tensors: Mapping[str, Tensor], layer: Layer
    ) -> Layer:
        """``W + scale * up @ down``, less the PiSSA start."""
        change = tensors["up.weight"] @ tensors["down.weight"]
        if "start.up" in tensors:
            change = change - tensors["start.up"] @ tensors["start.down"]
        return replace(layer, weight=layer.weight + config.scale * change)

    def apply(self, config: LoraConfig, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """``target + scale * up(down(source))``, less what it was at a PiSSA start."""
        x = batch.source
        if config.dropout and batch.train:
            x = F.dropout(x, config.dropout)
        if "start.down" not in weights:
            return add_linear(
                batch.target, linear(x, weights["down.weight"]), weights["up.weight"], config.scale
            )
        # The same operators on the same numbers: at the start the difference is exactly zero.
        now = linear(linear(x, weights["down.weight"]), weights["up.weight"])
        start = linear(linear(x, weights["start.down"]), weights["start.up"])
        return batch.target + config.scale * (now - start)

    def fold(
        self, config: LoraConfig, weights: Mapping[str, Tensor], dtype: torch.dtype
    ) -> FoldedBottleneck:
        """A bottleneck of nothing but two projections."""
        return fold_lora([weights["down.weight"]], [weights["up.weight"]], dtype)

    def fused(self, config: LoraConfig, batch: FusedBatch) -> Tensor | None:
        """One operator for both projections and the sum; not with dropout, nor a PiSSA start."""
        dropped = config.dropout and batch.train
        fitting = fits(batch.source, batch.target, batch.width)
        if dropped or config.start == "pissa" or not fitting:
            return None
        return fused_lora(batch.source, batch.target, batch.folded(), batch.slots, config.scale)


def principal(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of ``weight`` (``[out, in]``) of that rank, as two factors.

    Returns:
        Down ``[rank, in]`` and up ``[out, rank]``, each with the root of the singular values.
    """
    u, s, v = torch.linalg.svd(weight.detach().double().cpu(), full_matrices=False)
    root = s[:rank].sqrt()
    return (root[:, None] * v[:rank]).float().contiguous(), (
        u[:, :rank] * root
    ).float().contiguous()
