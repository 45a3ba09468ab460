"""How adapters get into a frozen model: hooks on its leaves.

Each leaf in use gets one hook on its output, and one on its input where an adapter edits that; each
sub-layer whose input or residual an adapter reads gets one on the module that opens it. A hook
reads the current call and nothing else: no adapter is ever "active", and a pass without a route
runs the plain model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import SiteBatch, Source
from speechadapt.backbones.base import Site
from speechadapt.call import Call, current
from speechadapt_kernels.stacked import Rows


class Hooks:
    """The hooks of one backbone.

    Args:
        sites: Every site by its canonical name.
    """

    def __init__(self, sites: Mapping[str, Site]):
        self._sites = sites
        self._handles: list[Any] = []
        self._hooked: set[tuple[str, int]] = set()

    def attach(self, adapter: Adapter) -> None:
        """Hook what this adapter needs and no other one needed yet."""
        for name in adapter.tensors:
            site = self._sites[name]
            if adapter.family.edits_input(adapter.config, site.point):
                self._once("input", site.leaf, self._hook_input)
            else:
                self._once("output", site.leaf, self._hook_output)
            source = adapter.family.source(adapter.config, site.point)
            reads_entry = source in ("sublayer_input", "residual") or site.reads_residual
            if site.entry is not None and reads_entry:
                self._once("entry", site.entry, self._hook_entry)

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._hooked = [], set()

    def _once(self, kind: str, module: nn.Module, hook: Callable[[nn.Module], Any]) -> None:
        if (kind, id(module)) not in self._hooked:
            self._hooked.add((kind, id(module)))
            self._handles.append(hook(module))

    def _hook_entry(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.entry is module]
        return module.register_forward_hook(partial(_keep, sites))

    def _hook_output(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.leaf is module]
        return module.register_forward_hook(partial(_change_output, sites))

    def _hook_input(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.leaf is module]
        return module.register_forward_pre_hook(partial(_change_input, sites))


@dataclass(frozen=True)
class _Step:
    """One operator of a pass at a site: adapters of one kind and the rows they serve."""

    adapter: Adapter  # the first of them; the others differ in tensors and width alone
    source: Source
    rows: Rows
    weights: Mapping[str, Tensor]
    store: Callable[[str, Tensor], None]


def _keep(
    sites: list[Site], _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    """Keep what the adapters of this sub-layer will read when it ends."""
    call = current()
    if call is None or not call.adapters:
        return
    for site in sites:
        for step in _steps(call, site, len(output), output.device):
            if step.source == "sublayer_input":
                call.kept[f"{site.name}/input"] = output if site.pre_norm else inputs[0]
            elif step.source == "residual" or (step.source == "output" and site.reads_residual):
                call.kept[f"{site.name}/residual"] = inputs[0]


def _change_output(
    sites: list[Site], _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    """The adapters of this batch at the sites of this leaf, in the sites' order."""
    call = current()
    if call is None or not call.adapters:
        return None  # the plain model, bit for bit
    for site in sites:
        steps = _steps(call, site, len(output), output.device)
        for step in steps:
            output = _apply(call, site, step, inputs[0], output)
        if steps:
            # A long recording would otherwise hold two tensors of every layer until the call ends.
            call.kept.pop(f"{site.name}/input", None)
            call.kept.pop(f"{site.name}/residual", None)
    return output


def _change_input(
    sites: list[Site], _module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    """The adapters that edit what this leaf reads."""
    call = current()
    if call is None or not call.adapters:
        return None
    value = inputs[0]
    for site in sites:
        for step in _steps(call, site, len(value), value.device, edits_input=True):
            value = _apply(call, site, step, value, value)
    return (value, *inputs[1:])


def _steps(
    call: Call, site: Site, count: int, device: torch.device, edits_input: bool = False
) -> list[_Step]:
    """What a pass of ``count`` rows does at a site: by level, then by kind of arithmetic.

    Made once for a call: decoding runs hundreds of passes over it, one token each.
    """

    def make() -> list[_Step]:
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
                _Step(
                    first,
                    first.family.source(first.config, site.point),
                    call.rows(members, level, count, device),
                    _weights(call, site, tuple(members), device),
                    partial(_store, call, site, members),
                )
            )
        return steps

    return call.once((site.name, edits_input, count), make)


def _apply(call: Call, site: Site, step: _Step, leaf_input: Tensor, target: Tensor) -> Tensor:
    """``target`` after one step; rows of other routes keep theirs bit for bit."""
    source = target
    if step.source == "leaf_input":
        source = leaf_input
    elif step.source == "sublayer_input":
        source = call.kept[f"{site.name}/input"]
    elif step.source == "residual":
        source = call.kept[f"{site.name}/residual"]
    elif site.reads_residual:
        source = target + call.kept[f"{site.name}/residual"]
    lengths = None
    if call.key_lengths is not None and site.stack == "encoder":
        lengths = step.rows.gather(call.key_lengths.to(target.device))
    read = step.rows.gather(target)
    batch = SiteBatch(
        source=read if source is target else step.rows.gather(source),
        target=read,
        train=step.adapter.training,
        lengths=lengths,
        store=step.store,
        penalties=call.penalties,
    )
    changed = step.adapter.family.apply(step.adapter.config, step.weights, batch)
    return step.rows.scatter(target, changed)


def _weights(
    call: Call, site: Site, members: tuple[int, ...], device: torch.device
) -> dict[str, Tensor]:
    """Tensors of several adapters, stacked and padded to the widest, where the pass runs."""

    def make() -> dict[str, Tensor]:
        each = [call.adapters[index].tensors[site.name] for index in members]
        if len(each) == 1:
            return {key: tensor[None].to(device) for key, tensor in each[0].items()}
        axes = call.adapters[members[0]].family.width_axes
        return {
            key: _stack([tensors[key].to(device) for tensors in each], axes.get(key))
            for key in each[0]
        }

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


def _store(call: Call, site: Site, members: Sequence[int], name: str, values: Tensor) -> None:
    with torch.no_grad():
        for index, value in zip(members, values, strict=True):
            call.adapters[index].tensors[site.name][name].copy_(value)
