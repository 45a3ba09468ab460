"""How adapters get into a frozen model: hooks on its leaves.

Each leaf in use gets one hook on its output, and one on its input where an adapter edits that; each
sub-layer whose input or residual an adapter reads gets one on the module that opens it. A hook
reads the current call and nothing else: no adapter is ever "active", and a pass without a route
runs the plain model. Inside an attention no hook reaches: one before it leaves word with the
attention function (:mod:`speechadapt.backbones.attention`) what adapters do there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import AttentionBatch, SiteBatch, Source
from speechadapt.backbones.base import Site
from speechadapt.call import Call, current
from speechadapt.errors import SpeechAdaptError
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
            if site.attention is not None:
                self._once("attention", site.leaf, self._hook_attention)
                continue
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

    def _hook_attention(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.leaf is module]
        return module.register_forward_pre_hook(partial(_announce, sites))


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


def _announce(sites: list[Site], _module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
    """Tell the attention function what the adapters of this batch do inside this attention."""
    call = current()
    if call is None or not call.adapters:
        return
    if call.attend is not None:
        raise SpeechAdaptError(
            "the base attends by another function than speechadapt's, which leaves prefixes out; "
            "do not change its attention implementation"
        )
    (site,) = sites
    if any(site.name in adapter.tensors for adapter in call.adapters):
        call.attend = partial(_attend, call, site)


def _attend(
    call: Call,
    site: Site,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    output: Tensor,
) -> Tensor:
    """What an attention gives after the adapters of this batch.

    Args:
        call: The batch.
        site: Its keys and values.
        query: ``[batch, heads, queries, head dim]``.
        key: ``[batch, heads, keys, head dim]``.
        mask: Boolean or additive, ``[batch or 1, 1, queries or 1, keys]``; None = see ``causal``.
        causal: Whether a query sees no later key, where there is no mask.
        scale: Factor of the scores.
        output: What it gave without adapters, ``[batch, queries, heads, head dim]``.
    """
    assert site.attention is not None
    source, target = query.transpose(1, 2).flatten(2), output.flatten(2)
    log_sum = None
    for step in _steps(call, site, len(query), query.device):
        family, config = step.adapter.family, step.adapter.config
        shares = family.shares_softmax(config)
        if shares and log_sum is None:
            log_sum = _log_sum(query * scale, key, mask, causal)
        batch = AttentionBatch(
            source=step.rows.gather(source),
            target=step.rows.gather(target),
            train=step.adapter.training,
            lengths=None,
            store=step.store,
            penalties=call.penalties,
            attention=site.attention,
            scale=scale,
            log_sum=step.rows.gather(log_sum) if shares and log_sum is not None else None,
        )
        target = step.rows.scatter(target, family.apply(config, step.weights, batch))
        if log_sum is not None and batch.log_sum is not None:
            log_sum = step.rows.scatter(log_sum, batch.log_sum)
    return target.unflatten(2, output.shape[2:])


def _log_sum(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Logarithm of the sum over the exponentials of scores, ``[batch, heads, queries, 1]``."""
    scores = query @ key.mT
    if mask is None and causal and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.logsumexp(-1, keepdim=True)


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


def _store(call: Call, site: Site, members: Sequence[int], name: str, values: Tensor) -> None:
    with torch.no_grad():
        for index, value in zip(members, values, strict=True):
            call.adapters[index].tensors[site.name][name].copy_(value)
