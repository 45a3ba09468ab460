"""What an adapter family is: how its tensors start, and what they do at a site."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from speechadapt.backbones.base import Attention, Site
from speechadapt_kernels.slotted import Slotted
from speechadapt_kernels.stacked import valid_frames

Source = Literal["output", "leaf_input", "sublayer_input", "residual"]
"""What an adapter reads: the leaf's output, its own input, what the whole sub-layer reads, or that
before the sub-layer normalises it."""


@dataclass(frozen=True)
class Layer:
    """What a leaf computes: ``weight @ x + bias``, or a normalisation with that bias.

    Attributes:
        weight: ``[out, in]``, or ``[dim]`` of a normalisation.
        bias: ``[out]``; None = the layer has none.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(slots=True)
class SiteBatch:
    """The rows that adapters of one kind serve at a site, laid out by adapter.

    Attributes:
        source: What the adapters read, ``[adapters, rows, frames, source dim]``.
        target: What they change, ``[adapters, rows, frames, dim]``: the leaf's output, or its
            input for a family that edits inputs.
        train: Whether these adapters are in training.
        lengths: Valid frames of each row, ``[adapters, rows]``; None = all are valid.
        repeated: Rows that only fill up an adapter's share, ``[adapters, rows]``; None = none.
        store: Replaces a buffer of the adapters: ``store(name, values)`` with values
            ``[adapters, ...]``.
        penalties: What is appended here is added to the loss of a training step.
    """

    source: Tensor
    target: Tensor
    train: bool
    lengths: Tensor | None
    repeated: Tensor | None
    store: Callable[[str, Tensor], None]
    penalties: list[Tensor]

    def of(self, index: int, store: Callable[[str, Tensor], None]) -> SiteBatch:
        """The rows of one of the adapters, which alone has ``store``."""
        one = slice(index, index + 1)
        return SiteBatch(
            self.source[one],
            self.target[one],
            self.train,
            None if self.lengths is None else self.lengths[one],
            None if self.repeated is None else self.repeated[one],
            store,
            self.penalties,
        )

    @property
    def valid(self) -> Tensor | None:
        """Which frames are no padding, ``[adapters, rows, frames, 1]``; None = all."""
        return None if self.lengths is None else valid_frames(self.source, self.lengths)

    def mean(self, x: Tensor) -> Tensor:
        """Each adapter's own mean over the valid frames of the rows it serves.

        Args:
            x: ``[adapters, rows, frames, channels]``.

        Returns:
            ``[adapters, channels]``: what the adapter would see were it alone in the batch.
        """
        counted = self.valid
        if self.repeated is not None:
            real = ~self.repeated[:, :, None, None]
            counted = real.expand(*x.shape[:3], 1) if counted is None else counted & real
        if counted is None:
            return x.mean((1, 2))
        return x.where(counted, 0.0).sum((1, 2)) / counted.sum((1, 2))


@dataclass(frozen=True, slots=True)
class FusedBatch:
    """All rows of a pass at a site as they lie, for families that have a fused operator.

    Attributes:
        source: What the adapters read, ``[batch, frames, source dim]``.
        target: What they change, ``[batch, frames, dim]``.
        slots: Which of the stacked adapters each row uses, ``[batch]`` int32, -1 = none.
        train: Whether these adapters are in training.
        width: Of the widest of them.
        folded: Gives what :meth:`Family.fold` made of them, once for the call.
    """

    source: Tensor
    target: Tensor
    slots: Tensor
    train: bool
    width: int
    folded: Callable[[], Any]


@dataclass(slots=True)
class AttentionBatch(SiteBatch):
    """The same inside an attention: ``source`` holds its queries, ``target`` what it gave, heads
    side by side, ``[adapters, rows, queries, dim]``.

    Attributes:
        attention: Its heads and projections.
        scale: Factor of the scores.
        log_sum: Logarithm of the sum over the exponentials of each query's scores, ``[adapters,
            rows, heads, queries, 1]``, for a family that shares their softmax; it adds its own.
    """

    attention: Attention
    scale: float
    log_sum: Tensor | None

    def by_head(self, x: Tensor) -> Tensor:
        """``[..., positions, dim]`` as ``[..., heads, positions, head dim]``."""
        return x.unflatten(-1, (self.attention.heads, -1)).transpose(-3, -2)


class Family(ABC):
    """One adapter method.

    Attributes:
        attends: Whether it adds to an attention's keys and values; at such sites only.
        width_axes: The axis of each tensor that runs over the config's width. Adapters that differ
            in width alone are padded with zeros along it and share one operator.
        buffers: Names of tensors that are not trained. They alone may hold integers (uint8).
        linear: Whether what it makes of a linear layer is one: then :meth:`merge` can tell which.
        copies: Whether a fresh adapter is a copy of layers of the base, and not drawn.
    """

    width_axes: ClassVar[Mapping[str, int]] = {}
    buffers: ClassVar[frozenset[str]] = frozenset()
    attends: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    copies: ClassVar[bool] = False

    def shares_softmax(self, config: Any) -> bool:
        """Whether what it adds to an attention takes part in the softmax of the other keys."""
        return False

    def source(self, config: Any, point: str) -> Source:
        """What it reads at ``point``."""
        return "output"

    def edits_input(self, config: Any, point: str) -> bool:
        """Whether it changes what the leaf reads, instead of what it gives."""
        return False

    def refuses(self, config: Any, site: Site) -> str | None:
        """Why it cannot attach to ``site``, in words; None = it can."""
        return None

    @abstractmethod
    def init(self, config: Any, site: Site, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh tensors for ``site``; they change no output."""

    def blank(self, config: Any, site: Site) -> dict[str, Tensor]:
        """Names, shapes and types of what :meth:`init` gives, on ``meta``: nothing is drawn."""
        with torch.device("meta"):
            tensors = self.init(config, site, torch.Generator("cpu"))
        return {key: tensor.to("meta") for key, tensor in tensors.items()}  # also copies

    def dense(self, config: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What :meth:`apply` takes, made from the tensors an adapter has at a site."""
        return tensors

    def fault(self, config: Any, tensors: Mapping[str, Tensor]) -> str | None:
        """Why tensors of the right shapes cannot be those of a site, in words; None = they can."""
        return None

    def merge(self, config: Any, point: str, tensors: Mapping[str, Tensor], layer: Layer) -> Layer:
        """The frozen layer and the adapter as one layer, if the family is linear.

        Args:
            config: Of the adapter.
            point: Where it attaches.
            tensors: Of the adapter at this site, in float64.
            layer: Weight and bias of the leaf, in float64.
        """
        raise NotImplementedError("the family is not linear")

    @abstractmethod
    def apply(self, config: Any, weights: Mapping[str, Tensor], batch: SiteBatch) -> Tensor:
        """What becomes of ``batch.target``.

        Args:
            config: Of the adapters; they differ in width at most.
            weights: Their tensors as :meth:`dense` gives them, each stacked: ``[adapters, ...]``.
            batch: The rows they serve.

        Returns:
            Shape of ``batch.target``.
        """

    def fold(self, config: Any, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Slotted:
        """Weights as :meth:`fused` reads them, for states of ``dtype``.

        Args:
            config: As :meth:`apply` takes it.
            weights: As :meth:`apply` takes them, of any number of adapters and sites.
            dtype: Of the states.

        Returns:
            The first axis of its tensors is that of the weights.
        """
        raise NotImplementedError("the family has no fused operator")

    def fused(self, config: Any, batch: FusedBatch) -> Tensor | None:
        """The same as :meth:`apply` for a whole batch at once, rows without an adapter included.

        Returns:
            Shape of ``batch.target``; None = there is no such operator for this config or batch.
        """
        return None


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """As ``nn.Linear`` and ``nn.Conv1d`` start: uniform within ``1 / sqrt(fan_in)``."""
    bound = 1.0 / math.sqrt(fan_in)
    return torch.rand(*shape, generator=generator) * (2 * bound) - bound


def linear_only(site: Site) -> str | None:
    """Why a family of linear layers cannot attach to ``site``; None = it can."""
    if not isinstance(site.leaf, nn.Linear):
        return "it changes a linear layer, such as attn.q or ffn.out"
    return None


_PLACED: dict[str, Source] = {
    "sequential": "output",
    "parallel": "sublayer_input",
    "parallel_residual": "residual",
}


def placed(placement: str) -> Source:
    """What a ``sequential``, ``parallel`` or ``parallel_residual`` adapter reads."""
    return _PLACED[placement]


def beside_only(placement: str, site: Site) -> str | None:
    """Why an adapter placed so cannot attach to ``site``; None = it can."""
    if placement != "sequential" and site.entry is None:
        return "a parallel adapter goes beside a sub-layer, such as ffn.out"
    return None
