"""No change of the base at all: the head alone is trained (linear probing)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family, SiteBatch
from speechadapt.backbones.base import Site


@dataclass(frozen=True)
class HeadOnlyConfig(AdapterConfig):
    """An adapter that attaches nowhere and brings a head: 0 parameters beside the head's.

    With a head that weighs all layers this is SUPERB's use of a frozen encoder (Yang et al. 2021,
    section 3).
    """

    method: ClassVar[str] = "head"

    points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_values()
        self.check(not self.points, "points", "none: the head alone is trained")
        self.check(self.top_layers is None, "top_layers", "none: the head alone is trained")

    def select(self, sites: Iterable[Site]) -> list[Site]:
        """None of them."""
        return []


class HeadOnly(Family):
    """The family of :class:`HeadOnlyConfig`."""

    def init(
        self, config: HeadOnlyConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def apply(
        self, config: HeadOnlyConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """``target``."""
        return batch.target
