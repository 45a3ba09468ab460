"""Convolutional adapters: ConvPass (Jie and Deng 2022) over time, and the conformer adapter
(Cappellazzo et al. 2024, section 3), with causal and LayerNorm variants for streaming."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, SiteBatch, Source, beside_only, placed, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.stacked import conv1d, layer_norm, linear, vector

_MOMENTUM = 0.1  # of the running statistics, as in torch
_EPSILON = 1e-5


@dataclass(frozen=True)
class ConvConfig(AdapterConfig):
    """What the convolutional adapters share; they attach to encoders alone.

    They run over the positions in their order. AST's are two summary tokens, then its patches, one
    band of frequencies after the other and each in the order of time: ``causal`` is about that
    order, and makes nothing of AST fit for streaming.

    Attributes:
        bottleneck: Channels of the convolution.
        kernel: Frames it sees; odd, unless causal.
        causal: It sees no later position.
        placement: ``sequential`` reads the sub-layer's output, ``parallel`` its input.
        scale: Factor of the adapter's output.
        dropout: Probability on the adapter's output while training.
    """

    points: tuple[str, ...] = ("ffn.out",)
    stacks: tuple[str, ...] | None = ("encoder",)
    bottleneck: int = 32
    kernel: int = 3
    causal: bool = False
    placement: str = "parallel"
    scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.bottleneck > 0, "bottleneck", "a width of 1 or more")
        self.check(self.kernel > 0, "kernel", "1 or more")
        self.check(self.causal or self.kernel % 2 == 1, "kernel", "an odd number unless causal")
        placements = ("sequential", "parallel")
        self.check(self.placement in placements, "placement", " or ".join(placements))
        self.check(self.scale != 0, "scale", "another number: with 0 nothing would be learnt")
        self.check(0.0 <= self.dropout < 1.0, "dropout", "0 … below 1")


class _Convolutional(Family):
    """Placement, masks and what surrounds the convolution."""

    def source(self, config: ConvConfig, point: str) -> Source:
        """The sub-layer's output (sequential) or its input (parallel)."""
        return placed(config.placement)

    def refuses(self, config: ConvConfig, site: Site) -> str | None:
        """A decoder gives its tokens one by one, and the convolution would need those before."""
        if site.stack == "decoder":
            return "a convolution needs the whole sequence, a decoder gives it token by token"
        return beside_only(config.placement, site)

    def apply(self, config: ConvConfig, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """``target + scale * up(inner(down(source)))``."""
        hidden = self.inner(config, weights, batch, batch.valid)
        delta = linear(hidden, weights["up.weight"], weights["up.bias"])
        if config.dropout and batch.train:
            delta = F.dropout(delta, config.dropout)
        return batch.target + (delta if config.scale == 1.0 else config.scale * delta)

    @abstractmethod
    def inner(
        self,
        config: ConvConfig,
        weights: Mapping[str, Tensor],
        batch: SiteBatch,
        valid: Tensor | None,
    ) -> Tensor:
        """From the source to what the up projection reads."""


def _silence(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero beyond each utterance, as a batch of one has it: nothing may leak in from there."""
    return x if valid is None else x.masked_fill(~valid, 0.0)


@dataclass(frozen=True)
class ConvPassConfig(ConvConfig):
    """Down projection, activation, convolution over time, activation, up projection; a block beside
    the attention and one beside the feed-forward, as in the paper.

    The paper convolves images in two dimensions; here it is one, also over AST's patches. A site of
    width D with b channels and kernel k has ``2·D·b + D + 2·b + k·b²`` parameters.
    """

    method: ClassVar[str] = "convpass"

    points: tuple[str, ...] = ("attn.out", "ffn.out")


class ConvPass(_Convolutional):
    """The family of :class:`ConvPassConfig`."""

    def init(
        self, config: ConvPassConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The convolution passes its input on; the up projection is zero."""
        channels, dim = config.bottleneck, site.dim
        conv = torch.zeros(channels, channels, config.kernel)
        conv[:, :, config.kernel - 1 if config.causal else config.kernel // 2] = torch.eye(channels)
        return {
            "down.weight": uniform((channels, dim), dim, generator),
            "down.bias": torch.zeros(channels),
            "conv.weight": conv,
            "conv.bias": torch.zeros(channels),
            "up.weight": torch.zeros(dim, channels),
            "up.bias": torch.zeros(dim),
        }

    def inner(
        self,
        config: ConvConfig,
        weights: Mapping[str, Tensor],
        batch: SiteBatch,
        valid: Tensor | None,
    ) -> Tensor:
        """GELU on both sides of the convolution."""
        hidden = F.gelu(linear(batch.source, weights["down.weight"], weights["down.bias"]))
        hidden = _silence(hidden, valid)
        return F.gelu(conv1d(hidden, weights["conv.weight"], weights["conv.bias"], config.causal))


@dataclass(frozen=True)
class ConformerConfig(ConvConfig):
    """LayerNorm, gated down projection, depthwise convolution, normalisation, SiLU, up projection.

    A site of width D with b channels and kernel k has ``3·D·b + 3·D + (k + 5)·b`` parameters.

    Attributes:
        norm: After the convolution: ``batch`` as in the paper (statistics of the training data,
            kept with the adapter), or ``layer``, which needs none.
    """

    method: ClassVar[str] = "conformer"

    kernel: int = 31
    norm: str = "batch"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.norm in ("batch", "layer"), "norm", "batch or layer")


class Conformer(_Convolutional):
    """The family of :class:`ConformerConfig`."""

    buffers: ClassVar = frozenset({"inner_norm.mean", "inner_norm.var"})

    def init(
        self, config: ConformerConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random but for the up projection, which is zero."""
        channels, dim = config.bottleneck, site.dim
        tensors = {
            "norm.weight": torch.ones(dim),
            "norm.bias": torch.zeros(dim),
            "down.weight": uniform((2 * channels, dim), dim, generator),
            "down.bias": torch.zeros(2 * channels),
            "conv.weight": uniform((channels, 1, config.kernel), config.kernel, generator),
            "conv.bias": torch.zeros(channels),
            "inner_norm.weight": torch.ones(channels),
            "inner_norm.bias": torch.zeros(channels),
            "up.weight": torch.zeros(dim, channels),
            "up.bias": torch.zeros(dim),
        }
        if config.norm == "batch":
            tensors |= {
                "inner_norm.mean": torch.zeros(channels),
                "inner_norm.var": torch.ones(channels),
            }
        return tensors

    def inner(
        self,
        config: ConvConfig,
        weights: Mapping[str, Tensor],
        batch: SiteBatch,
        valid: Tensor | None,
    ) -> Tensor:
        """Gate, convolution, normalisation, SiLU."""
        hidden = layer_norm(batch.source, weights["norm.weight"], weights["norm.bias"])
        hidden = F.glu(linear(hidden, weights["down.weight"], weights["down.bias"]), -1)
        hidden = _silence(hidden, valid)
        hidden = conv1d(hidden, weights["conv.weight"], weights["conv.bias"], config.causal)
        if "inner_norm.mean" in weights:
            hidden = _batch_norm(hidden, weights, batch)
        else:
            hidden = layer_norm(hidden, weights["inner_norm.weight"], weights["inner_norm.bias"])
        return F.silu(hidden)


def _batch_norm(x: Tensor, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
    """BatchNorm whose training statistics leave padding out; each adapter has its own.

    The running variance is that of the batches themselves (torch's is larger by n / (n - 1)).
    """
    mean, var = weights["inner_norm.mean"], weights["inner_norm.var"]
    if batch.train:
        seen = batch.mean(x)
        spread = batch.mean((x - vector(seen)).square())
        for name, old, new in (("mean", mean, seen), ("var", var, spread)):
            batch.store(f"inner_norm.{name}", old.lerp(new.detach(), _MOMENTUM))
        mean, var = seen, spread
    scale = weights["inner_norm.weight"] * torch.rsqrt(var + _EPSILON)
    return torch.addcmul(vector(weights["inner_norm.bias"]), x - vector(mean), vector(scale))
