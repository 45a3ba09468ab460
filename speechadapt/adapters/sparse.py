"""Sparse adapters (He et al. 2022, *SparseAdapter*): bottlenecks of which few weights exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from speechadapt.adapters.bottleneck import Bottleneck, BottleneckConfig
from speechadapt.backbones.base import Site

SCORES = ("snip", "magnitude", "random")
PARTS = ("down", "up")
"""The projections that are sparse; biases and LayerNorm are dense."""


@dataclass(frozen=True)
class SparseConfig(BottleneckConfig):
    """A bottleneck adapter that keeps a fraction of the weights of its two projections.

    A site of width D has ``2·round(density·D·bottleneck) + bottleneck + D`` parameters, ``2·D``
    more with the inner LayerNorm; on disk a bit for each weight, kept or not, says which are.

    Attributes:
        density: Fraction of the weights of each projection that is kept (He et al. 2022 speak of
            sparsity, which elsewhere is the fraction that is not).
        score: Which weights are kept: ``snip`` those that change the loss most on the first batches
            of the run (Lee et al. 2019), ``magnitude`` the largest of the fresh down projection,
            ``random`` any.
    """

    method: ClassVar[str] = "sparse"

    density: float = 0.2
    score: str = "snip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0.0 < self.density <= 1.0, "density", "a fraction above 0, at most 1")
        self.check(self.score in SCORES, "score", " or ".join(SCORES))

    @property
    def dense(self) -> BottleneckConfig:
        """The bottleneck that has all of the weights."""
        return BottleneckConfig(**{f.name: getattr(self, f.name) for f in fields(BottleneckConfig)})

    @property
    def computation(self) -> tuple[Any, ...]:
        """The bottleneck's: which weights exist is settled before the operator sees them."""
        return self.dense.computation


class Sparse(Bottleneck):
    """The family of :class:`SparseConfig`.

    Of a projection it has ``values`` ``[1, kept]`` (one row, so that storing matrices in few bits
    means them too) and ``mask``: a bit for each weight in row-major order, eight in a byte, the
    first in the highest bit.

    Every projection keeps the same fraction, instead of all of them together as in Lee et al.
    (2019): the shapes of an adapter then follow from its config and are checked when it is loaded,
    no site can lose all of its weights, and the scores of down and up, whose ratio is that of two
    arbitrary starts, never have to be compared.
    """

    buffers: ClassVar = frozenset(f"{part}.mask" for part in PARTS)

    def init(
        self, config: BottleneckConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A fresh bottleneck's weights, those kept that are largest or that the lot falls on."""
        assert isinstance(config, SparseConfig)
        tensors = super().init(config, site, generator)
        for part in PARTS:
            weight = tensors.pop(f"{part}.weight")
            by_size = config.score == "magnitude" and part == "down"  # up is zero, all alike
            score = weight.abs() if by_size else torch.rand(weight.shape, generator=generator)
            tensors |= keep(part, weight, score, config.density)
        return tensors

    def dense(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Both projections with zeros where there is no weight."""
        width, dim = len(tensors["down.bias"]), len(tensors["up.bias"])
        made = {k: t for k, t in tensors.items() if not k.endswith((".values", ".mask"))}
        for part, shape in zip(PARTS, ((width, dim), (dim, width)), strict=True):
            values = tensors[f"{part}.values"]
            chosen = unpack_mask(tensors[f"{part}.mask"], width * dim)
            weight = values.new_zeros(width * dim).masked_scatter(chosen, values[0])
            made[f"{part}.weight"] = weight.view(shape)
        return made

    def fault(self, config: Any, tensors: Mapping[str, Tensor]) -> str | None:
        """A mask that marks more or fewer weights than there are."""
        weights = len(tensors["down.bias"]) * len(tensors["up.bias"])
        for part in PARTS:
            mask, count = tensors[f"{part}.mask"], tensors[f"{part}.values"].shape[1]
            marked = int(unpack_mask(mask, weights).sum())
            if marked != count or bool(unpack_mask(mask, 8 * len(mask))[weights:].any()):
                return f"{part}.mask marks {marked} of {weights} weights, but {count} are stored"
        return None


def keep(part: str, weight: Tensor, score: Tensor, density: float) -> dict[str, Tensor]:
    """The weights with the highest scores, as :class:`Sparse` has them; of equal ones the first.

    Args:
        part: ``down`` or ``up``.
        weight: Dense, ``[out, in]``.
        score: Same shape.
        density: Fraction that is kept: that many weights, rounded, and at least one.
    """
    count = max(1, round(density * weight.numel()))
    order = score.flatten().argsort(descending=True, stable=True)
    kept = order[:count].sort().values
    chosen = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    chosen[kept] = True
    return {f"{part}.values": weight.flatten()[kept][None], f"{part}.mask": pack_mask(chosen)}


def pack_mask(chosen: Tensor) -> Tensor:
    """``[weights]`` booleans as ``[ceil(weights / 8)]`` bytes."""
    missing = -len(chosen) % 8
    bits = torch.nn.functional.pad(chosen.to(torch.uint8), (0, missing)).view(-1, 8)
    return (bits << _shifts(chosen.device)).sum(1).to(torch.uint8)


def unpack_mask(mask: Tensor, weights: int) -> Tensor:
    """The inverse of :func:`pack_mask`."""
    return (mask[:, None] >> _shifts(mask.device) & 1).flatten()[:weights].bool()


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
