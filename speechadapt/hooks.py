"""How adapters get into a frozen model: hooks on its leaves.

Each leaf in use gets one hook on its output, and one on its input where an adapter edits that; each
sub-layer whose input or residual an adapter reads gets one on the module that opens it. What is at
the end of a layer hooks the layer itself: its output is read and changed where it lies. A hook
reads the current call and nothing else: no adapter is ever "active", and a pass without a route
runs the plain model. Inside an attention no hook reaches: one before it leaves word with the
attention function (:mod:`speechadapt.backbones.attention`) what adapters do there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import SiteBatch
from speechadapt.attending import attend
from speechadapt.backbones.base import Site
from speechadapt.call import Call, current
from speechadapt.errors import SpeechAdaptError
from speechadapt.steps import Step, steps_at


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
                if site.resumed is not None:
                    self._once("output", site.resumed, self._hook_output)
            source = adapter.family.source(adapter.config, site.point)
            if site.entry is not None and source in ("sublayer_input", "residual"):
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
        sites = [site for site in self._sites.values() if module in (site.leaf, site.resumed)]
        # Before any hook that keeps: what a sub-layer reads is what the adapters here make of it,
        # whichever of the two was needed first.
        return module.register_forward_hook(partial(_change_output, sites), prepend=True)

    def _hook_input(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.leaf is module]
        return module.register_forward_pre_hook(partial(_change_input, sites))

    def _hook_attention(self, module: nn.Module) -> Any:
        sites = [site for site in self._sites.values() if site.leaf is module]
        return module.register_forward_pre_hook(partial(_announce, sites))


def _keep(
    sites: list[Site], _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    """Keep what the adapters of this sub-layer will read when it ends."""
    call = current()
    if call is None or not call.adapters:
        return
    for site in sites:
        for step in steps_at(call, site, output.shape[0], output.device):
            if step.source == "sublayer_input":
                call.kept[f"{site.name}/input"] = output if site.pre_norm else inputs[0]
            elif step.source == "residual":
                call.kept[f"{site.name}/residual"] = inputs[0]


def _change_output(
    sites: list[Site],
    _module: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor | tuple[Any, ...],
) -> Tensor | tuple[Any, ...] | None:
    """The adapters of this batch at the sites of this leaf, in the sites' order."""
    call = current()
    if call is None or not call.adapters:
        return None  # the plain model, bit for bit
    if isinstance(output, tuple):  # of a layer, in releases of transformers before 5.4
        first = _change_output(sites, _module, inputs, output[0])
        return (first, *output[1:])
    for site in sites:
        steps = steps_at(call, site, output.shape[0], output.device)
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
        for step in steps_at(call, site, value.shape[0], value.device, edits_input=True):
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
        call.attend = partial(attend, call, site)


def _apply(call: Call, site: Site, step: Step, leaf_input: Tensor, target: Tensor) -> Tensor:
    """``target`` after one step; rows of other routes keep theirs bit for bit."""
    source = target
    if step.source == "leaf_input":
        source = leaf_input
    elif step.source == "sublayer_input":
        source = call.kept[f"{site.name}/input"]
    elif step.source == "residual":
        source = call.kept[f"{site.name}/residual"]
    if (fused := step.fused(source, target)) is not None:
        return fused
    lengths = call.lengths(site.stack, target.device)
    if lengths is not None:
        lengths = step.rows.gather(lengths)
    read = step.rows.gather(target)
    batch = SiteBatch(
        source=read if source is target else step.rows.gather(source),
        target=read,
        train=step.adapter.training,
        lengths=lengths,
        repeated=step.rows.repeated,
        store=step.store,
        penalties=call.penalties,
    )
    return step.rows.scatter(target, step.apply(batch))
