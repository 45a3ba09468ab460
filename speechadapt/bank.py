"""AdapterBank: the adapters resident on one backbone, and the routes of a batch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.config import AdapterConfig
from speechadapt.backbones.base import Site
from speechadapt.call import Call
from speechadapt.errors import AdapterError, RouteError
from speechadapt.hooks import Hooks
from speechadapt.route import Route, adapter_names, check_name
from speechadapt.spilling import give_back, spilled


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
        # Replaced, never changed: other threads iterate over the old one undisturbed.
        self._adapters: dict[str, Adapter] = {}
        self._writing = threading.Lock()
        self._hooks = Hooks(backbone.sites)
        self._shapes: dict[tuple[AdapterConfig, str], dict[str, torch.Size]] = {}
        self._last_used: dict[str, int] = {}
        self._clock = itertools.count()

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
            AdapterError: It attaches to sites that the backbone does not have, or of another width.
            RouteError: Its name cannot be used in routes.
        """
        check_name(adapter.name)
        self._check_sites(adapter)
        adapter.to(self._backbone.device, self._backbone.dtype)
        with self._writing:
            self._hooks.attach(adapter)
            self._adapters = {**self._adapters, adapter.name: adapter}
        return adapter

    def _check_sites(self, adapter: Adapter) -> None:
        for name, tensors in adapter.tensors.items():
            key = adapter.config, name
            if name not in self._backbone.sites:
                raise AdapterError(
                    f"adapter {adapter.name!r}: attaches to {name}, which this backbone does not "
                    "have; load the base it was made for"
                )
            if key not in self._shapes:  # the same for a thousand adapters
                self._shapes[key] = adapter.shapes_at(self._backbone.sites[name])
            if {part: tensor.shape for part, tensor in tensors.items()} != self._shapes[key]:
                raise AdapterError(
                    f"adapter {adapter.name!r}: its tensors at {name} are made for another width; "
                    "load the base it was made for"
                )

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            RouteError: It is not loaded.
        """
        with self._writing:
            gone = self[name]
            self._adapters = {k: a for k, a in self._adapters.items() if a is not gone}
            self._last_used.pop(name, None)

    @property
    def resident_bytes(self) -> int:
        """Memory that the tensors of adapters take which are not spilled."""
        return sum(adapter.bytes for adapter in self if not adapter.spilled)

    def spill(self, most_bytes: int) -> list[str]:
        """Move adapters out of the way, the least recently used first.

        They stay routable. On a CPU their tensors are mapped from a file without a name, which the
        system reads when they are used and forgets when memory is short; beside a GPU they are kept
        in the main memory, pinned, and copied when a batch needs them. Calls under way keep what
        they started with. Adapters in training stay.

        Args:
            most_bytes: What may stay resident; moving ends when no more is.

        Returns:
            Names of the adapters that were moved.
        """
        moved, resident = [], self.resident_bytes
        for adapter in sorted(self, key=lambda each: self._last_used.get(each.name, -1)):
            if resident <= most_bytes:
                break
            if adapter.spilled or adapter.training:
                continue
            away = spilled(adapter)
            with self._writing:
                # Unless another thread has replaced or removed it meanwhile.
                if self._adapters.get(adapter.name) is adapter:
                    self._adapters = {**self._adapters, adapter.name: away}
                    moved.append(adapter.name)
                    resident -= adapter.bytes
        if moved:
            give_back()
        return moved

    def detach(self) -> None:
        """Take every hook off the backbone, which then is the plain model again."""
        self._hooks.remove()
        self._adapters = {}

    def call(self, routes: Sequence[Route], key_lengths: Tensor | None = None) -> Call:
        """What a pass over a batch with these routes needs.

        Args:
            routes: One for each utterance.
            key_lengths: Valid encoder positions, ``[batch]``; None = all.

        Raises:
            RouteError: A route names an adapter that is not loaded.
        """
        stacks = [adapter_names(route) for route in routes]
        names = list(dict.fromkeys(name for stack in stacks for name in stack))
        index = {name: i for i, name in enumerate(names)}
        adapters = tuple(self[name] for name in names)
        now = next(self._clock)
        self._last_used.update(dict.fromkeys(names, now))
        return Call(
            adapters,
            tuple(tuple(index[name] for name in stack) for stack in stacks),
            key_lengths,
        )
