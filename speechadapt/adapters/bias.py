"""The smallest families: BitFit, AdapterBias and (IA)³ shift or scale what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import EVERYWHERE, AdapterConfig
from speechadapt.adapters.family import Family, Layer, SiteBatch, linear_only, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.stacked import linear, vector


@dataclass(frozen=True)
class BitFitConfig(AdapterConfig):
    """A change of the bias of each layer and normalisation (Ben Zaken et al. 2022): D parameters
    at a site of width D."""

    method: ClassVar[str] = "bitfit"

    points: tuple[str, ...] = (EVERYWHERE,)


class BitFit(Family):
    """The family of :class:`BitFitConfig`."""

    linear: ClassVar = True

    def refuses(self, config: BitFitConfig, site: Site) -> str | None:
        """Modules that have a bias."""
        if getattr(site.leaf, "bias", None) is None:
            return "no bias there to change"
        return None

    def init(
        self, config: BitFitConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """No change."""
        return {"shift": torch.zeros(site.dim)}

    def merge(
        self, config: BitFitConfig, point: str, tensors: Mapping[str, Tensor], layer: Layer
    ) -> Layer:
        """``bias + shift``."""
        assert layer.bias is not None  # refuses() saw to it
        return Layer(layer.weight, layer.bias + tensors["shift"])

    def apply(
        self, config: BitFitConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target + shift``."""
        return batch.target + vector(weights["shift"])


@dataclass(frozen=True)
class AdapterBiasConfig(AdapterConfig):
    """A shift whose size depends on the frame: ``y + v · (a·y + c)`` (Fu et al. 2022, section 3).

    A site of width D has ``2·D + 1`` parameters.
    """

    method: ClassVar[str] = "adapter_bias"

    points: tuple[str, ...] = ("ffn.out",)


class AdapterBias(Family):
    """The family of :class:`AdapterBiasConfig`."""

    def init(
        self, config: AdapterBiasConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The shift is zero."""
        return {
            "shift": torch.zeros(site.dim),
            "size.weight": uniform((1, site.dim), site.dim, generator),
            "size.bias": torch.zeros(1),
        }

    def apply(
        self, config: AdapterBiasConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target + shift * size(source)``."""
        size = linear(batch.source, weights["size.weight"], weights["size.bias"])
        return torch.addcmul(batch.target, vector(weights["shift"]), size)


@dataclass(frozen=True)
class Ia3Config(AdapterConfig):
    """A factor for each channel of keys, values, and of what the feed-forward's second layer reads
    (Liu et al. 2022, *(IA)³*, section 3.3): as many parameters as channels.

    As in the paper, cross-attention has factors too where there is one.
    """

    method: ClassVar[str] = "ia3"

    points: tuple[str, ...] = ("*.k", "*.v", "ffn.out")


class Ia3(Family):
    """The family of :class:`Ia3Config`."""

    linear: ClassVar = True

    def edits_input(self, config: Ia3Config, point: str) -> bool:
        """The activation inside the feed-forward is what ``ffn.out`` reads."""
        return point == "ffn.out"

    def refuses(self, config: Ia3Config, site: Site) -> str | None:
        """Linear layers only."""
        return linear_only(site)

    def init(self, config: Ia3Config, site: Site, generator: torch.Generator) -> dict[str, Tensor]:
        """Every factor 1."""
        edits_input = self.edits_input(config, site.point)
        return {"scale": torch.ones(site.input_dim if edits_input else site.dim)}

    def merge(
        self, config: Ia3Config, point: str, tensors: Mapping[str, Tensor], layer: Layer
    ) -> Layer:
        """Columns scaled where the input is edited, rows and bias elsewhere."""
        scale = tensors["scale"]
        if self.edits_input(config, point):
            return Layer(layer.weight * scale, layer.bias)
        bias = None if layer.bias is None else layer.bias * scale
        return Layer(layer.weight * scale[:, None], bias)

    def apply(self, config: Ia3Config, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """``target * scale``."""
        return batch.target * vector(weights["scale"])
