"""What one forward pass needs to know about its batch.

Hooks sit on the leaves of a frozen model and cannot be handed extra arguments, so the call travels
beside them in a ``ContextVar``: set for one pass, reset in ``finally``, separate in every thread.
Nothing about a batch is ever kept on a module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from speechadapt.adapters.adapter import Adapter


@dataclass
class Call:
    """One batch under way.

    Attributes:
        adapters: The adapters this batch uses, each once. They stay those of the start of the call
            even when the bank replaces one meanwhile.
        slots: For each utterance the index of its adapter in ``adapters``; -1 = frozen base.
        key_lengths: Valid encoder positions of each utterance, ``[batch]``; None = all are valid.
        kept: Tensors an adapter needs later in the same pass (a residual, a sub-layer's input),
            by canonical site.
    """

    adapters: tuple[Adapter, ...] = ()
    slots: tuple[int, ...] = ()
    key_lengths: Tensor | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[int, int, torch.device], Tensor] = field(default_factory=dict)

    def rows(self, count: int) -> tuple[int, ...]:
        """Slots for a forward pass of ``count`` rows.

        A beam search runs several consecutive rows for each utterance.

        Raises:
            ValueError: ``count`` is no multiple of the number of utterances (a bug of the caller).
        """
        if count == len(self.slots):
            return self.slots
        beams, rest = divmod(count, len(self.slots))
        if rest:
            raise ValueError(f"{count} rows do not divide over {len(self.slots)} utterances")
        return tuple(slot for slot in self.slots for _ in range(beams))

    def key_mask(self, rows: int, keys: int, device: torch.device) -> Tensor | None:
        """Boolean mask ``[rows, 1, 1, keys]`` of valid encoder positions; None = all are valid."""
        if self.key_lengths is None:
            return None
        cached = self._masks.get((rows, keys, device))
        if cached is None:
            lengths = self.key_lengths.to(device)
            lengths = lengths.repeat_interleave(rows // len(lengths))
            cached = (torch.arange(keys, device=device) < lengths[:, None])[:, None, None, :]
            self._masks[(rows, keys, device)] = cached
        return cached


_current: ContextVar[Call | None] = ContextVar("speechadapt_call", default=None)


def current() -> Call | None:
    """The call under way in this thread, if any."""
    return _current.get()


@contextmanager
def running(call: Call) -> Iterator[Call]:
    """Make ``call`` the current one for the passes inside the ``with`` block."""
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
        call.kept.clear()
