"""What the adapters of a batch do at a site: operators, and the rows each of them serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from weakref import proxy

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import FusedBatch, SiteBatch, Source
from speechadapt.backbones.base import Site
from speechadapt.call import Call
from speechadapt_kernels.dispatch import uses_triton
from speechadapt_kernels.plan import runs_apart
from speechadapt_kernels.slotted import Slotted
from speechadapt_kernels.stacked import Rows


@dataclass(frozen=True)
class Step:
    """One operator of a pass at a site: adapters of one kind and the rows they serve."""

    call: Call
    site: Site
    members: tuple[int, ...]  # of the adapters, which differ in tensors and width alone
    rows: Rows
    device: torch.device

    @cached_property
    def adapter(self) -> Adapter:
        """The first of them."""
        return self.call.adapters[self.members[0]]

    @cached_property
    def source(self) -> Source:
        """What they read."""
        return self.adapter.family.source(self.adapter.config, self.site.point)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Tensors of all of them here, stacked and padded to the widest, where the pass runs."""
        name = self.site.name

        def make() -> dict[str, Tensor]:
            each = [self.call.adapters[index].weights(name, self.device) for index in self.members]
            return _stacked(each, self.adapter.family.width_axes)

        return self.call.once(("weights", name, self.members), make)

    @cached_property
    def _fuses(self) -> bool:
        """Whether operators of Triton run where it is."""
        return uses_triton(self.device, torch.float32)

    def apply(self, batch: SiteBatch) -> Tensor:
        """What becomes of rows laid out by adapter: all at once, or one adapter after the other."""
        if batch.target.shape[0] == 1 or not runs_apart(batch.target):
            return self.adapter.family.apply(self.adapter.config, self.weights, batch)
        # Split, not indexed: the gradient of an index is as large as all of them.
        each = zip(*(tensor.split(1) for tensor in self.weights.values()), strict=True)
        made = []
        for index, values in enumerate(each):
            weights = dict(zip(self.weights, values, strict=True))
            store = partial(self.store, first=index)
            made.append(
                self.adapter.family.apply(self.adapter.config, weights, batch.of(index, store))
            )
        return torch.cat(made)

    def fused(self, source: Tensor, target: Tensor) -> Tensor | None:
        """What becomes of ``target`` (``[batch, frames, dim]``) by one operator for all rows.

        None = the family has none for this; rows are then laid out by adapter.
        """
        if not self._fuses or source.dtype == torch.float64:
            return None
        adapter, config = self.adapter, self.adapter.config
        configs = [self.call.adapters[index].config for index in self.members]
        batch = FusedBatch(
            source,
            target,
            self.rows.slots,
            adapter.training,
            max(getattr(each, config.width) for each in configs) if config.width else 0,
            partial(self._folded, source.dtype),
        )
        return adapter.family.fused(config, batch)

    def store(self, name: str, values: Tensor, first: int = 0) -> None:
        """Replace a buffer of those adapters from ``first`` on that ``values`` has one for."""
        with torch.no_grad():
            for index, value in zip(self.members[first:], values, strict=False):
                self.call.adapters[index].tensors[self.site.name][name].copy_(value)

    def _folded(self, dtype: torch.dtype) -> Slotted:
        """What the family's operator reads, made for all sites that are alike at once.

        One site after the other, a batch would launch a thousand small operators before it begins.
        """
        made = self.call.once(("folded", self.members, dtype), dict[str, Slotted])
        if self.site.name not in made:
            sites, adapter = self._alike(), self.adapter
            each = [
                self.call.adapters[index].weights(name, self.device)
                for name in sites
                for index in self.members
            ]
            stacked = _stacked(each, adapter.family.width_axes)
            folded = adapter.family.fold(adapter.config, stacked, dtype)
            made.update(zip(sites, folded.split(len(self.members)), strict=True))
        return made[self.site.name]

    def _alike(self) -> list[str]:
        """The same place in all layers of the stack where the same adapters of the call are, with
        tensors of the same shapes."""

        def kind(name: str) -> tuple[Any, ...]:
            shapes = [(key, t.shape) for key, t in self.adapter.tensors[name].items()]
            stack, _, *point = name.split(".")
            here = (name in adapter.tensors for adapter in self.call.adapters)
            return (stack, *point, *shapes, *here)

        wanted = kind(self.site.name)
        return [name for name in self.adapter.tensors if kind(name) == wanted]


def steps_at(
    call: Call, site: Site, count: int, device: torch.device, edits_input: bool = False
) -> list[Step]:
    """What a pass of ``count`` rows does at a site: by level, then by kind of arithmetic.

    Made once for a call: decoding runs hundreds of passes over it, one token each.
    """

    def make() -> list[Step]:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for level in range(call.depth):
            used = dict.fromkeys(stack[level] for stack in call.stacks if level < len(stack))
            for index in used:
                adapter = call.adapters[index]
                edits = adapter.family.edits_input(adapter.config, site.point)
                if site.name in adapter.tensors and edits == edits_input:
                    key = (level, adapter.config.computation, adapter.training)
                    groups.setdefault(key, []).append(index)
        # The call keeps its steps: were it kept by them, its stacked weights would outlive it until
        # Python looks for cycles, those of many batches together.
        mine = proxy(call)
        return [
            Step(mine, site, tuple(members), call.rows(members, level, count, device), device)
            for (level, *_), members in groups.items()
        ]

    return call.once((site.name, edits_input, count), make)


def _stacked(each: Sequence[Mapping[str, Tensor]], axes: Mapping[str, int]) -> dict[str, Tensor]:
    """Tensors of several adapters or sites, padded to the widest along ``axes``."""
    if len(each) == 1:
        return {key: tensor[None] for key, tensor in each[0].items()}
    return {key: _stack([tensors[key] for tensors in each], axes.get(key)) for key in each[0]}


def _stack(tensors: list[Tensor], axis: int | None) -> Tensor:
    if axis is not None:
        width = max(tensor.shape[axis] for tensor in tensors)
        pads = [(0, 0) * (tensor.dim() - 1 - axis) for tensor in tensors]
        tensors = [
            F.pad(tensor, (*pad, 0, room)) if (room := width - tensor.shape[axis]) else tensor
            for tensor, pad in zip(tensors, pads, strict=True)
        ]
    return torch.stack(tensors)
