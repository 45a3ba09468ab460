"""What one forward pass needs to know about its batch.

Hooks sit on the leaves of a frozen model and cannot be handed extra arguments, so the call travels
beside them in a ``ContextVar``: set for one pass, reset in ``finally``, separate in every thread.
Nothing about a batch is ever kept on a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from speechadapt_kernels.stacked import Rows

if TYPE_CHECKING:
    from speechadapt.adapters.adapter import Adapter

T = TypeVar("T")


@dataclass
class Call:
    """One batch under way.

    Attributes:
        adapters: The adapters this batch uses, each once. They stay those of the start of the call
            even when the bank replaces one meanwhile.
        stacks: For each utterance the indices of its adapters in ``adapters``, in the order in
            which they are applied; empty = frozen base.
        key_lengths: Valid encoder positions of each utterance, ``[batch]``; None = all are valid.
        token_lengths: Tokens of each utterance in a teacher-forced pass, ``[batch]``; None = all
            that the pass has.
        kept: Tensors an adapter needs later in the same pass (a residual, a sub-layer's input),
            by canonical site.
        penalties: What adapters in training add to the loss.
        attend: What adapters do in the attention that runs next; its function takes it from here.
    """

    adapters: tuple[Adapter, ...] = ()
    stacks: tuple[tuple[int, ...], ...] = ()
    key_lengths: Tensor | None = None
    token_lengths: Tensor | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    penalties: list[Tensor] = field(default_factory=list)
    attend: Callable[..., Tensor] | None = None
    _made: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def depth(self) -> int:
        """Adapters in the longest stack of the batch."""
        return max(map(len, self.stacks), default=0)

    @property
    def reads_layers(self) -> bool:
        """Whether a head of these adapters needs the states of all layers."""
        heads = (adapter.head for adapter in self.adapters)
        return any(head is not None and head.reads_layers for head in heads)

    def keep(self, utterances: Sequence[int], key_lengths: Tensor | None) -> Call:
        """The call that goes on with some of the utterances."""
        return Call(self.adapters, tuple(self.stacks[i] for i in utterances), key_lengths)

    def rows(self, members: Sequence[int], level: int, count: int, device: torch.device) -> Rows:
        """Rows of a pass that use one of the adapters ``members`` as number ``level`` of a stack.

        Args:
            members: Indices into ``adapters``, each used by an utterance at that level.
            level: 0 = applied first.
            count: Rows of the pass: a beam search runs several consecutive ones an utterance.
            device: Where the pass runs.

        Raises:
            ValueError: ``count`` is no multiple of the number of utterances (a bug of the caller).
        """
        beams, rest = divmod(count, len(self.stacks))
        if rest:
            raise ValueError(f"{count} rows do not divide over {len(self.stacks)} utterances")

        def make() -> Rows:
            place = {member: i for i, member in enumerate(members)}
            slots = [
                place.get(stack[level], -1) if level < len(stack) else -1 for stack in self.stacks
            ]
            return Rows([slot for slot in slots for _ in range(beams)], len(members), device)

        # Each is copied to the device, which stops until it is: once, not at every site.
        return self.once(("rows", tuple(members), level, count, device), make)

    def lengths(self, stack: str, device: torch.device) -> Tensor | None:
        """Valid positions (encoder) or tokens (decoder) of each utterance, ``[batch]``, where a
        pass runs; None = all are valid."""
        lengths = self.key_lengths if stack == "encoder" else self.token_lengths
        if lengths is None or lengths.device == device:
            return lengths
        return self.once(("lengths", stack, device), lambda: lengths.to(device))

    def key_mask(self, rows: int, keys: int, device: torch.device) -> Tensor | None:
        """Boolean mask ``[rows, 1, 1, keys]`` of valid encoder positions; None = all are valid."""
        lengths = self.lengths("encoder", device)
        if lengths is None:
            return None

        def make() -> Tensor:
            valid = lengths.repeat_interleave(rows // len(lengths))
            return (torch.arange(keys, device=device) < valid[:, None])[:, None, None, :]

        return self.once(("mask", rows, keys, device), make)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """``make()``, made once for this batch: decoding runs hundreds of passes over it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


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
        call.attend = None
