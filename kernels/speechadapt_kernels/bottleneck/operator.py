"""The fused bottleneck as an operator of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from speechadapt_kernels.bottleneck import folded
from speechadapt_kernels.bottleneck.folded import FoldedBottleneck
from speechadapt_kernels.dispatch import uses_triton
from speechadapt_kernels.layout import check_layout


def fused_bottleneck(
    source: Tensor,
    weights: FoldedBottleneck,
    slots: Tensor,
    activation: str,
    scale: float = 1.0,
    base: Tensor | None = None,
    offsets: Tensor | None = None,
    longest: int = 0,
) -> Tensor:
    """``base + scale * up(act(down(norm(source))))``, each utterance with the adapter of its slot.

    Args:
        source: What the adapters read, ``[batch, frames, dim]`` or packed ``[frames, dim]``; dim is
            a multiple of 64.
        weights: As :func:`~speechadapt_kernels.bottleneck.folded.fold` makes them.
        slots: Adapter of each utterance, ``[batch]``, int32, -1 = none.
        activation: ``gelu``, ``relu`` or ``silu``.
        scale: Factor of the adapters' output.
        base: What it is added to, of the same shape; None = the source.
        offsets: Where each utterance of a packed batch begins, ``[batch + 1]``, int32.
        longest: Frames of the longest utterance of a packed batch.

    Returns:
        Shape of ``source``; rows without an adapter are those of the base, bit for bit.

    Raises:
        ValueError: Shapes do not go together.
    """
    check_layout(source, slots, offsets)
    return _forward(
        source,
        base,
        slots,
        weights.down,
        weights.down_sum,
        weights.down_bias,
        weights.up,
        weights.up_bias,
        activation,
        scale,
        offsets,
        longest,
    )


@torch.library.custom_op("speechadapt::bottleneck", mutates_args=())
def _forward(
    source: Tensor,
    base: Tensor | None,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> Tensor:
    weights = FoldedBottleneck(down, down_sum, down_bias, up, up_bias)
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.bottleneck import launch

        return launch.forward(source, base, slots, weights, activation, scale, offsets, longest)
    origin = source if base is None else base
    return folded.forward(source, origin, slots, weights, activation, scale, offsets)


@_forward.register_fake
def _(source: Tensor, *_args: Any) -> Tensor:
    return torch.empty_like(source, memory_format=torch.contiguous_format)


@torch.library.custom_op("speechadapt::bottleneck_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    source: Tensor,
    same: bool,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = FoldedBottleneck(down, down_sum, down_bias, up, up_bias)
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.bottleneck import launch

        below, grads = launch.backward(
            gradient, source, same, slots, weights, activation, scale, offsets, longest
        )
    else:
        below, grads = folded.backward(gradient, source, slots, weights, activation, scale, offsets)
        if same:
            below = below + gradient
    # An operator returns tensors only; without a LayerNorm this one is not looked at.
    sums = down_bias.new_zeros(0) if grads.down_sum is None else grads.down_sum
    return below, grads.down, sums, grads.down_bias, grads.up, grads.up_bias


@_backward.register_fake
def _(
    gradient: Tensor,
    source: Tensor,
    same: bool,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor,
    up: Tensor,
    up_bias: Tensor,
    *_args: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    sums = down_bias.new_empty(0) if down_sum is None else torch.empty_like(down_sum)
    below = torch.empty_like(source, memory_format=torch.contiguous_format)
    matrices = torch.empty_like(down), torch.empty_like(up)
    return (
        below,
        matrices[0],
        sums,
        torch.empty_like(down_bias),
        matrices[1],
        torch.empty_like(up_bias),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    source, base, slots, down, down_sum, down_bias, up, up_bias, *settings = inputs
    ctx.activation, ctx.scale, offsets, ctx.longest = settings
    ctx.same = base is None
    ctx.save_for_backward(source, slots, down, down_sum, down_bias, up, up_bias, offsets)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    source, slots, down, down_sum, down_bias, up, up_bias, offsets = ctx.saved_tensors
    below, *weights = _backward(
        gradient.contiguous(),
        source,
        ctx.same,
        slots,
        down,
        down_sum,
        down_bias,
        up,
        up_bias,
        ctx.activation,
        ctx.scale,
        offsets,
        ctx.longest,
    )
    if down_sum is None:
        weights[1] = None
    past = None if ctx.same else gradient
    return below, past, None, *weights, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup)
