"""What the adapters of a batch do at a site: operators, and the rows each of them serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import FusedBatch, SiteBatch, Source
from speechadapt.backbones.base import Site
from speechadapt.call import Call
from speechadapt_kernels.dispatch import uses_triton
from speechadapt_kernels.plan import runs_apart
from speechadapt_kernels.stacked import Rows

Store = Callable[..., None]


@dataclass(frozen=True)
class Step:
    """One operator of a pass at a site: adapters of one kind and the rows they serve."""

    adapter: Adapter  # the first of them; the others differ in tensors and width alone
    source: Source
    rows: Rows
    weights: Mapping[str, Tensor]
    store: Store
    fuses: bool  # operators of Triton run where it is
    _folded: dict[torch.dtype, Any] = field(default_factory=dict)

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
        if not self.fuses or source.dtype == torch.float64:
            return None
        adapter = self.adapter
        batch = FusedBatch(
            source, target, self.rows.slots, adapter.training, partial(self._fold, source.dtype)
        )
        return adapter.family.fused(adapter.config, self.weights, batch)

    def _fold(self, dtype: torch.dtype, make: Callable[[], Any]) -> Any:
        if dtype not in self._folded:
            self._folded[dtype] = make()
        return self._folded[dtype]


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
        steps = []
        for (level, *_), members in groups.items():
            first = call.adapters[members[0]]
            steps.append(
                Step(
                    first,
                    first.family.source(first.config, site.point),
                    call.rows(members, level, count, device),
                    _weights(call, site, tuple(members), device),
                    partial(_store, call, site, members),
                    uses_triton(device, torch.float32),
                )
            )
        return steps

    return call.once((site.name, edits_input, count), make)


def _weights(
    call: Call, site: Site, members: tuple[int, ...], device: torch.device
) -> dict[str, Tensor]:
    """Tensors of several adapters, stacked and padded to the widest, where the pass runs."""

    def make() -> dict[str, Tensor]:
        each = [call.adapters[index].weights(site.name, device) for index in members]
        if len(each) == 1:
            return {key: tensor[None] for key, tensor in each[0].items()}
        axes = call.adapters[members[0]].family.width_axes
        return {key: _stack([tensors[key] for tensors in each], axes.get(key)) for key in each[0]}

    return call.once(("weights", site.name, members), make)


def _stack(tensors: list[Tensor], axis: int | None) -> Tensor:
    if axis is not None:
        width = max(tensor.shape[axis] for tensor in tensors)
        pads = [(0, 0) * (tensor.dim() - 1 - axis) for tensor in tensors]
        tensors = [
            F.pad(tensor, (*pad, 0, width - tensor.shape[axis]))
            for tensor, pad in zip(tensors, pads, strict=True)
        ]
    return torch.stack(tensors)


def _store(
    call: Call, site: Site, members: Sequence[int], name: str, values: Tensor, first: int = 0
) -> None:
    """Replace a buffer of those of ``members`` from ``first`` on that ``values`` has one for."""
    with torch.no_grad():
        for index, value in zip(members[first:], values, strict=False):
            call.adapters[index].tensors[site.name][name].copy_(value)
