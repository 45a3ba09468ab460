"""Layers of an encoder: run one by one, and what passes between them when a head wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

_read: ContextVar[list[Tensor] | None] = ContextVar("speechadapt_layers", default=None)


def run_layers(
    layers: Iterable[nn.Module], states: Tensor, read: list[Tensor] | None = None
) -> Tensor:
    """What the layers make of ``states``, ``[batch, positions, dim]``.

    Masks are those of the current call (:mod:`speechadapt.backbones.attention`).

    Args:
        layers: In their order.
        states: What the first one reads.
        read: Gets what each of them reads.
    """
    for layer in layers:
        if read is not None:
            read.append(states)
        output = layer(states, None)
        # Releases of transformers before 5.4 put it into a tuple.
        states = output[0] if isinstance(output, tuple) else output
    return states


class Tap:
    """Collects what each layer reads.

    Releases of transformers collect the states of layers in different places, and not all where
    adapters have changed them already. What a layer reads is a tensor in all of them. Nothing is
    hooked before the first pass that collects; later passes that do not look at one variable.

    Args:
        layers: In their order.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self._layers = layers
        self._hooking = threading.Lock()
        self._hooked = False

    @contextmanager
    def collecting(self) -> Iterator[list[Tensor]]:
        """What the layers read in the pass inside the ``with`` block, in this thread."""
        with self._hooking:
            if not self._hooked:
                for layer in self._layers:
                    layer.register_forward_pre_hook(_keep)
                self._hooked = True
        states: list[Tensor] = []
        token = _read.set(states)
        try:
            yield states
        finally:
            _read.reset(token)


def _keep(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    states = _read.get()
    if states is not None:
        states.append(inputs[0])
