"""AdapterBank: the adapters resident on one backbone, and the hooks that apply them.

One forward hook per leaf, registered when the first adapter needs it. A hook reads the current call
and nothing else: no adapter is ever "active", and a pass without a route runs the plain model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter
from speechadapt.backbones.base import Site
from speechadapt.call import Call, current
from speechadapt.errors import RouteError
from speechadapt.route import Route, check_name


class HasSites(Protocol):
    """What the bank asks of a backbone."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Every site by its canonical name."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        ...


class AdapterBank:
    """Holds any number of adapters on one backbone.

    Adapters may be added, replaced and removed while other threads run: a call keeps the adapters
    it started with.

    Args:
        backbone: Where they attach.
    """

    def __init__(self, backbone: HasSites):
        self._backbone = backbone
        self._adapters: dict[str, Adapter] = {}
        self._hooks: list[Any] = []
        self._hooked: set[str] = set()

    def __iter__(self) -> Iterator[Adapter]:
        return iter(tuple(self._adapters.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._adapters

    def __getitem__(self, name: str) -> Adapter:
        try:
            return self._adapters[name]
        except KeyError:
            raise RouteError(
                f"no adapter {name!r} is loaded; loaded: {', '.join(self._adapters) or 'none'}"
            ) from None

    def add(self, adapter: Adapter) -> Adapter:
        """Make ``adapter`` routable; one of the same name is replaced.

        Raises:
            RouteError: Its name cannot be used in routes.
        """
        check_name(adapter.name)
        adapter.to(self._backbone.device, self._backbone.dtype)
        # A new dict instead of a changed one: other threads iterate over the old one undisturbed.
        self._adapters = {**self._adapters, adapter.name: adapter}
        self._hook(adapter.tensors)
        return adapter

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            RouteError: It is not loaded.
        """
        gone = self[name]
        self._adapters = {k: a for k, a in self._adapters.items() if a is not gone}

    def detach(self) -> None:
        """Take every hook off the backbone, which then is the plain model again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._hooked, self._adapters = [], set(), {}

    def call(self, routes: Sequence[Route], key_lengths: Tensor | None = None) -> Call:
        """What a pass over a batch with these routes needs.

        Args:
            routes: One for each utterance.
            key_lengths: Valid encoder positions, ``[batch]``; None = all.

        Raises:
            RouteError: A route names an adapter that is not loaded.
        """
        names = list(dict.fromkeys(route for route in routes if route is not None))
        index = {name: i for i, name in enumerate(names)}
        slots = tuple(-1 if route is None else index[route] for route in routes)
        return Call(tuple(self[name] for name in names), slots, key_lengths)

    def _hook(self, names: Iterable[str]) -> None:
        """Hook the leaves of these sites, each leaf once for all the sites that end in it."""
        leaves = {id(self._backbone.sites[name].leaf) for name in names if name not in self._hooked}
        for leaf_id in leaves:
            sites = [s for s in self._backbone.sites.values() if id(s.leaf) == leaf_id]
            self._hooked.update(site.name for site in sites)
            keep = _keeper(sites)
            self._hooks.append(sites[0].norm.register_forward_hook(keep))
            self._hooks.append(sites[0].leaf.register_forward_hook(_applier(sites)))


def _keeper(sites: list[Site]) -> Any:
    """Hook on the normalisation: keep what the adapters of this sub-layer will read."""

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        call = current()
        if call is None:
            return
        for site in sites:
            for adapter in call.adapters:
                if site.name not in adapter.tensors:
                    continue
                if adapter.family.source(adapter.config) == "input":
                    call.kept[f"{site.name}/input"] = output
                elif site.reads_residual:
                    call.kept[f"{site.name}/residual"] = inputs[0]

    return keep


def _applier(sites: list[Site]) -> Any:
    """Hook on the leaf: add what the adapters of this batch add, in the sites' order."""

    def apply(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        call = current()
        if call is None or not call.adapters:
            return None  # the plain model, bit for bit
        for site in sites:
            output = _apply_site(site, call, output)
        return output

    return apply


def _apply_site(site: Site, call: Call, output: Tensor) -> Tensor:
    slots = call.rows(output.shape[0])
    groups: dict[Any, list[int]] = {}
    for slot, adapter in enumerate(call.adapters):
        if site.name in adapter.tensors:
            groups.setdefault((adapter.config.computation, adapter.training), []).append(slot)
    base = output
    for members in groups.values():
        adapter = call.adapters[members[0]]
        source = _source(site, adapter, call, base)
        if len(members) == 1 and set(slots) == {members[0]}:
            output = adapter.family.apply(
                adapter.config, adapter.tensors[site.name], source, output, adapter.training
            )
            continue
        place = {slot: i for i, slot in enumerate(members)}
        output = adapter.family.apply_mixed(
            adapter.config,
            [call.adapters[slot].tensors[site.name] for slot in members],
            torch.tensor([place.get(slot, -1) for slot in slots], device=output.device),
            source,
            output,
            adapter.training,
        )
    return output


def _source(site: Site, adapter: Adapter, call: Call, output: Tensor) -> Tensor:
    if adapter.family.source(adapter.config) == "input":
        return call.kept[f"{site.name}/input"]
    if site.reads_residual:
        return output + call.kept[f"{site.name}/residual"]
    return output
