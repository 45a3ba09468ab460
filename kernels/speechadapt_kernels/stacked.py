"""Arithmetic with the weights of n adapters stacked on a first axis.

A batch is laid out by adapter, ``[adapters, rows, frames, dim]``: ``rows`` is how many of its
utterances each adapter serves. One product then serves every adapter, whatever each row uses. With
a single adapter the plain operators run, so that it costs what an unstacked layer costs.

This is the plain torch reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.norm import normalised
from speechadapt_kernels.products import add_product, product


class Rows:
    """Which of ``count`` stacked adapters each row of a batch uses.

    Args:
        slots: Adapter of each row, -1 … count-1; -1 = none. Every adapter serves a row at least.
        count: Number of stacked adapters.
        device: Where the batch is.
    """

    def __init__(self, slots: Sequence[int], count: int, device: torch.device):
        self.count = count
        self._slots, self._device = slots, device
        self._served: list[list[int]] = [[] for _ in range(count)]
        for row, slot in enumerate(slots):
            if slot >= 0:
                self._served[slot].append(row)
        self.per_adapter = max(map(len, self._served))
        # Beam search and plain batches come in this order: then a view is all it takes.
        in_order = [row for rows in self._served for row in rows] == list(range(len(slots)))
        self._in_order = in_order and all(len(rows) == self.per_adapter for rows in self._served)

    # Each is copied to the device, which is waited for: once, and only if anybody asks.

    @cached_property
    def slots(self) -> Tensor:
        """Adapter of each row, ``[batch]`` int32 on the device, -1 = none."""
        return torch.tensor(self._slots, dtype=torch.int32, device=self._device)

    @cached_property
    def repeated(self) -> Tensor | None:
        """Rows that stand in only so that each adapter has as many, ``[adapters, rows]``: their
        result is not read, and no statistic may count them. None = there are none."""
        counts = list(map(len, self._served))
        if min(counts) == self.per_adapter:
            return None
        served = torch.tensor(counts, device=self._device)
        return torch.arange(self.per_adapter, device=self._device) >= served[:, None]

    @cached_property
    def _gathered(self) -> Tensor:
        """Rows in the order of the adapters; those that serve fewer repeat their first one."""
        padded = [rows + rows[:1] * (self.per_adapter - len(rows)) for rows in self._served]
        return torch.tensor(padded, device=self._device).flatten()

    @cached_property
    def _read(self) -> Tensor:
        """Which of those are no repetition."""
        places = [
            adapter * self.per_adapter + i
            for adapter, rows in enumerate(self._served)
            for i in range(len(rows))
        ]
        return torch.tensor(places, device=self._device)

    @cached_property
    def _written(self) -> Tensor:
        """Which row of the batch each of them is."""
        return torch.tensor([row for rows in self._served for row in rows], device=self._device)

    def gather(self, x: Tensor) -> Tensor:
        """``[batch, ...]`` laid out by adapter, ``[adapters, rows, ...]``."""
        if not self._in_order:
            x = x.index_select(0, self._gathered)
        return x.reshape(self.count, self.per_adapter, *x.shape[1:])

    def scatter(self, base: Tensor, y: Tensor) -> Tensor:
        """``base`` (``[batch, ...]``) with the rows that use an adapter taken from ``y``.

        Args:
            base: Kept bit for bit where a row uses no adapter.
            y: Laid out by adapter, ``[adapters, rows, ...]``.
        """
        y = y.flatten(0, 1)
        if self._in_order:
            return y
        return base.index_copy(0, self._written, y.index_select(0, self._read).to(base.dtype))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each adapter's own linear layer.

    Args:
        x: ``[adapters, rows, frames, in]``.
        weight: ``[adapters, out, in]``.
        bias: ``[adapters, out]``.

    Returns:
        ``[adapters, rows, frames, out]``.
    """
    if weight.shape[0] == 1:
        only = None if bias is None else bias.squeeze(0)
        return product(x.squeeze(0), weight.squeeze(0).mT, only).unsqueeze(0)
    y = product(x.flatten(1, 2), weight.mT, bias)
    return y.view(*x.shape[:-1], y.shape[-1])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each adapter's own LayerNorm over the last axis, with weights ``[adapters, dim]``."""
    if weight.shape[0] == 1:
        return F.layer_norm(x, x.shape[-1:], weight[0], bias[0])
    return torch.addcmul(vector(bias), normalised(x)[0], vector(weight))


def vector(x: Tensor) -> Tensor:
    """``[adapters, dim]`` in a shape that broadcasts over rows and frames."""
    return x[:, None, None]


def add_linear(
    base: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> Tensor:
    """``base + scale * linear(x, weight, bias)``, the sum made inside the product.

    Args:
        base: ``[adapters, rows, frames, out]``.
        x: ``[adapters, rows, frames, in]``.
        weight: ``[adapters, out, in]``.
        scale: Factor of the product.
        bias: ``[adapters, out]``.
    """
    if weight.shape[0] == 1:
        only = None if bias is None else bias.squeeze(0)
        matrix, rows = weight.squeeze(0).mT, x.flatten(0, 2)
        return add_product(base.flatten(0, 2), rows, matrix, only, scale).view(base.shape)
    flat = add_product(base.flatten(1, 2), x.flatten(1, 2), weight.mT, bias, scale)
    return flat.view(base.shape)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor, causal: bool = False) -> Tensor:
    """Each adapter's own convolution over the frames, as long as its input.

    Args:
        x: ``[adapters, rows, frames, channels]``; zero beyond each utterance.
        weight: ``[adapters, channels, channels or 1 (depthwise), kernel]``, an odd kernel unless
            causal.
        bias: ``[adapters, channels]``.
        causal: Whether a frame sees itself and earlier ones only.
    """
    adapters, _, frames, channels = x.shape
    kernel = weight.shape[-1]
    before = kernel - 1 if causal else kernel // 2
    groups = adapters * channels // weight.shape[2]
    flat = x.permute(1, 0, 3, 2).flatten(1, 2)  # [rows, adapters * channels, frames]
    flat = F.pad(flat, (before, kernel - 1 - before))
    y = F.conv1d(flat, weight.flatten(0, 1), bias.flatten(), groups=groups)
    return y.view(-1, adapters, channels, frames).permute(1, 0, 3, 2)


def valid_frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Boolean ``[adapters, rows, frames, 1]``: which frames of ``x`` are no padding."""
    return (torch.arange(x.shape[2], device=x.device) < lengths[..., None])[..., None]
