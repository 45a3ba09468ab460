"""Weights of several adapters as an operator reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar, Self

from torch import Tensor


@dataclass(frozen=True)
class Slotted:
    """Tensors of adapters in their slots: the first axis of each is that of the slots.

    Whatever else a subclass has is the same for all of them.
    """

    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        held = cls.__annotations__.items()
        cls._names += tuple(name for name, kind in held if "Tensor" in str(kind))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "parts"}

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """In the order of their fields; None = there is none."""
        return tuple(getattr(self, name) for name in self._names)

    def of(self, slots: Tensor) -> Self:
        """The weights of each utterance's slot."""
        return self._with([None if t is None else t[slots] for t in self.tensors])

    def apart(self) -> list[Self]:
        """Each slot's weights, without the first axis. The gradient of an index would be as large
        as all of them."""
        count = len(next(t for t in self.tensors if t is not None))
        if count == 1:  # without a copy of its gradient
            return [self._with([None if t is None else t.squeeze(0) for t in self.tensors])]
        each = [[None] * count if t is None else t.unbind() for t in self.tensors]
        return [self._with(mine) for mine in zip(*each, strict=True)]

    def split(self, size: int) -> list[Self]:
        """So many slots each."""
        each = [repeat(None) if t is None else t.split(size) for t in self.tensors]
        return [self._with(mine) for mine in zip(*each, strict=False)]

    @cached_property
    def parts(self) -> list[Self]:
        """The same, made once, for where nothing learns; they show what is written into the
        tensors."""
        return self.apart()

    def _with(self, tensors: Iterable[Tensor | None]) -> Self:
        return replace(self, **dict(zip(self._names, tensors, strict=True)))
