"""Gated language experts: DistilWhisper's gate (Ferraz et al. 2024, section 3.1) over a bottleneck
instead of a copy of the feed-forward, which keeps an expert at adapter size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.adapters.bottleneck import Bottleneck, BottleneckConfig, apply_bottleneck
from speechadapt.adapters.family import FusedBatch, SiteBatch, uniform
from speechadapt.backbones.base import Site
from speechadapt_kernels.stacked import linear


@dataclass(frozen=True)
class GatedConfig(BottleneckConfig):
    """A bottleneck adapter that a gate switches on for some of the frames or tokens.

    The paper lets the gate's noise grow from 0 to 5 over its training; here it stays the same.

    Beside the bottleneck's, a site of width D has ``(D + 2) · gate_width`` parameters.

    Attributes:
        gate_width: Hidden width of the gate.
        hard: Outside training the gate is 0 or 1, as in the paper; otherwise it is its probability,
            as in training, with which there are fewer errors (docs/adapters.md).
        gate_noise: Standard deviation of the noise on the gate's logit in training, which drives it
            towards 0 and 1.
        budget: Mean of the gate that training aims at.
        budget_weight: Weight of the distance from it in the loss.
    """

    method: ClassVar[str] = "gated"

    points: tuple[str, ...] = ("ffn.out",)
    placement: str = "parallel"
    gate_width: int = 64
    hard: bool = False
    gate_noise: float = 1.0
    budget: float = 0.5
    budget_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.gate_width > 0, "gate_width", "1 or more")
        self.check(self.gate_noise >= 0, "gate_noise", "0 or more")
        self.check(0 <= self.budget <= 1, "budget", "0 … 1")
        self.check(self.budget_weight >= 0, "budget_weight", "0 or more")


class Gated(Bottleneck):
    """The family of :class:`GatedConfig`."""

    def init(
        self, config: BottleneckConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A bottleneck that changes nothing; the gate's logit is zero, which means open."""
        assert isinstance(config, GatedConfig)
        return {
            **super().init(config, site, generator),
            "gate.down.weight": uniform((config.gate_width, site.dim), site.dim, generator),
            "gate.down.bias": torch.zeros(config.gate_width),
            "gate.up.weight": torch.zeros(1, config.gate_width),
        }

    def apply(
        self, config: BottleneckConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target + gate(source) * bottleneck(source)``."""
        assert isinstance(config, GatedConfig)
        hidden = F.relu(
            linear(batch.source, weights["gate.down.weight"], weights["gate.down.bias"])
        )
        logit = linear(hidden, weights["gate.up.weight"])
        if batch.train:
            gate = torch.sigmoid(logit + config.gate_noise * torch.randn_like(logit))
            if config.budget_weight:
                distance = (batch.mean(gate) - config.budget).abs().sum()
                batch.penalties.append(config.budget_weight * distance)
        elif config.hard:
            gate = (logit >= 0).to(logit.dtype)
        else:
            gate = torch.sigmoid(logit)
        return apply_bottleneck(config, weights, batch, gate)

    def fused(self, config: BottleneckConfig, batch: FusedBatch) -> Tensor | None:
        """None: the bottleneck's operator has no gate."""
        return None
