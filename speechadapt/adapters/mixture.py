"""Mixtures of adapters inside one: dense (every frame weighs all of them) and soft (Soft-MoA,
Cappellazzo et al. 2024: every adapter reads mixtures of frames)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, SiteBatch, Source, beside_only, placed, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.stacked import linear


@dataclass(frozen=True)
class MixtureConfig(AdapterConfig):
    """Several small bottlenecks beside a sub-layer, and a router that learns who does what.

    With E experts of width b, a site of width D has ``E·(2·D·b + b + D)`` parameters, and a router
    of ``D·E`` (dense) or ``D·E·slots`` (soft).

    Attributes:
        experts: Number of bottlenecks.
        bottleneck: Width of each.
        activation: ``gelu``, ``relu`` or ``silu``.
        routing: ``dense``: each frame gets the sum of all experts' outputs, weighted by its own
            softmax. ``soft``: each expert reads ``slots`` weighted means over the frames, and each
            frame gets a weighted mean of what they made; it sees the whole utterance.
        slots: Means that each expert reads, with soft routing.
        placement: ``parallel`` reads the sub-layer's input, ``sequential`` its output.
    """

    method: ClassVar[str] = "mixture"

    points: tuple[str, ...] = ("ffn.out",)
    experts: int = 4
    bottleneck: int = 16
    activation: str = "gelu"
    routing: str = "dense"
    slots: int = 1
    placement: str = "parallel"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.experts > 0, "experts", "1 or more")
        self.check(self.bottleneck > 0, "bottleneck", "a width of 1 or more")
        self.check(self.activation in ACTIVATIONS, "activation", " or ".join(ACTIVATIONS))
        self.check(self.routing in ("dense", "soft"), "routing", "dense or soft")
        self.check(self.slots > 0, "slots", "1 or more")
        self.check(self.routing == "soft" or self.slots == 1, "slots", "1 with dense routing")
        placements = ("sequential", "parallel")
        self.check(self.placement in placements, "placement", " or ".join(placements))


class Mixture(Family):
    """The family of :class:`MixtureConfig`."""

    def source(self, config: MixtureConfig, point: str) -> Source:
        """The sub-layer's output (sequential) or its input (parallel)."""
        return placed(config.placement)

    def refuses(self, config: MixtureConfig, site: Site) -> str | None:
        """Soft routing needs all frames at once."""
        if config.routing == "soft" and site.stack == "decoder":
            return "soft routing needs the whole sequence, a decoder gives it token by token"
        return beside_only(config.placement, site)

    def init(
        self, config: MixtureConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The router is even or nearly so; every up projection is zero."""
        width, dim = config.experts * config.bottleneck, site.dim
        return {
            "router.weight": uniform((config.experts * config.slots, dim), dim, generator),
            "down.weight": uniform((width, dim), dim, generator),
            "down.bias": torch.zeros(width),
            "up.weight": torch.zeros(config.experts, dim, config.bottleneck),
            "up.bias": torch.zeros(config.experts, dim),
        }

    def apply(
        self, config: MixtureConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target`` plus what the experts made of ``source``."""
        logits = linear(batch.source, weights["router.weight"])
        if config.routing == "dense":
            return batch.target + _dense(config, weights, batch.source, logits.softmax(-1))
        # Dispatch is normalised over the frames: padding has to be no part of it.
        valid = batch.valid
        frames = logits if valid is None else logits.masked_fill(~valid, -math.inf)
        dispatch, combine = frames.softmax(2), logits.softmax(-1)
        read = dispatch.mT @ batch.source  # [adapters, rows, experts * slots, dim]
        return batch.target + combine @ _experts(config, weights, read)


def _dense(
    config: MixtureConfig, weights: Mapping[str, Tensor], x: Tensor, share: Tensor
) -> Tensor:
    """All experts as one wide bottleneck; a frame's shares weigh its parts."""
    hidden = ACTIVATIONS[config.activation](linear(x, weights["down.weight"], weights["down.bias"]))
    hidden = (hidden.unflatten(-1, (config.experts, -1)) * share[..., None]).flatten(-2)
    up = weights["up.weight"].transpose(1, 2).flatten(2)  # [adapters, dim, experts * bottleneck]
    return linear(hidden, up) + linear(share, weights["up.bias"].mT)


def _experts(config: MixtureConfig, weights: Mapping[str, Tensor], read: Tensor) -> Tensor:
    """Each expert on its own slots, ``[adapters, rows, experts * slots, dim]``."""
    mine = read.unflatten(2, (config.experts, -1)).transpose(1, 2).flatten(0, 1)
    down = weights["down.weight"].unflatten(1, (config.experts, -1)).flatten(0, 1)
    bias = weights["down.bias"].unflatten(1, (config.experts, -1)).flatten(0, 1)
    hidden = ACTIVATIONS[config.activation](linear(mine, down, bias))
    made = linear(hidden, weights["up.weight"].flatten(0, 1), weights["up.bias"].flatten(0, 1))
    made = made.unflatten(0, (len(read), config.experts)).transpose(1, 2)
    return made.flatten(2, 3)
