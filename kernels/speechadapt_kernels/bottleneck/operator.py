"""The fused bottleneck as an operator of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from speechadapt_kernels.bottleneck import folded
from speechadapt_kernels.bottleneck.folded import FoldedBottleneck
from speechadapt_kernels.dispatch import runs_plain, uses_triton
from speechadapt_kernels.layout import check_arithmetic, check_dims, check_layout


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
        activation: ``gelu``, ``relu``, ``silu`` or ``identity``.
        scale: Factor of the adapters' output.
        base: What it is added to, ``[..., out]``; None = the source.
        offsets: Where each utterance of a packed batch begins, ``[batch + 1]``, int32.
        longest: Frames of the longest utterance of a packed batch, or more: frames of longer ones
            would not be written. 0 = there may be one alone.

    Returns:
        Shape of the base; rows without an adapter are the base's, bit for bit.

    Raises:
        ValueError: Shapes or types do not go together, or no kernel is made for them.
    """
    check_layout(source, slots, offsets)
    check_arithmetic(source, weights.down, activation)
    origin = source if base is None else base
    _check_widths(source, origin, weights)
    if runs_plain(source):
        return folded.forward(source, origin, slots, weights, activation, scale, offsets)
    return _forward(
        source,
        base,
        slots,
        *weights.tensors,
        weights.rank,
        activation,
        scale,
        offsets,
        longest or len(source),
    )


def _check_widths(source: Tensor, base: Tensor, weights: FoldedBottleneck) -> None:
    dim, each = weights.down.shape[-1], weights.up.shape[-1]
    out = weights.slices * each
    if source.shape[:-1] != base.shape[:-1] or source.shape[-1] != dim or base.shape[-1] != out:
        raise ValueError(
            f"source {list(source.shape)} and base {list(base.shape)} do not fit projections from "
            f"{dim} and to {out} values"
        )
    check_dims(dim, each)


@torch.library.custom_op("speechadapt::bottleneck", mutates_args=())
def _forward(
    source: Tensor,
    base: Tensor | None,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor | None,
    up: Tensor,
    up_bias: Tensor | None,
    rank: int,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> Tensor:
    weights = FoldedBottleneck(down, down_sum, down_bias, up, up_bias, rank)
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.bottleneck import launch

        return launch.forward(source, base, slots, weights, activation, scale, offsets, longest)
    origin = source if base is None else base
    return folded.forward(source, origin, slots, weights, activation, scale, offsets)


@_forward.register_fake
def _(source: Tensor, base: Tensor | None, *_args: Any) -> Tensor:
    origin = source if base is None else base
    return torch.empty_like(origin, memory_format=torch.contiguous_format)


@torch.library.custom_op("speechadapt::bottleneck_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    source: Tensor,
    same: bool,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor | None,
    up: Tensor,
    up_bias: Tensor | None,
    rank: int,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> list[Tensor]:
    weights = FoldedBottleneck(down, down_sum, down_bias, up, up_bias, rank)
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.bottleneck import launch

        below, grads = launch.backward(
            gradient, source, same, slots, weights, activation, scale, offsets, longest
        )
    else:
        below, grads = folded.backward(gradient, source, slots, weights, activation, scale, offsets)
        if same:
            below = below + gradient
    return [below, *_present(grads)]


@_backward.register_fake
def _(
    gradient: Tensor,
    source: Tensor,
    same: bool,
    slots: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor | None,
    up: Tensor,
    up_bias: Tensor | None,
    rank: int,
    *_args: Any,
) -> list[Tensor]:
    weights = FoldedBottleneck(down, down_sum, down_bias, up, up_bias, rank)
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (source, *_present(weights))
    ]


def _present(weights: FoldedBottleneck) -> list[Tensor]:
    """Those of its tensors that there are."""
    return [tensor for tensor in weights.tensors if tensor is not None]


def bottleneck_gradients(
    gradient: Tensor,
    source: Tensor,
    same: bool,
    slots: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> tuple[Tensor, FoldedBottleneck]:
    """The backward of :func:`fused_bottleneck`, for operators whose backward it is too.

    Args: as of :func:`fused_bottleneck`, and the gradient of what it gave, and whether its base was
        the source.

    Returns:
        Gradients of the source, with what goes past the adapter if it was the base, and weights.
    """
    tensors = weights.tensors
    below, *present = _backward(
        gradient.contiguous(),
        source,
        same,
        slots,
        *tensors,
        weights.rank,
        activation,
        scale,
        offsets,
        longest,
    )
    rest = iter(present)
    grads: list[Any] = [None if tensor is None else next(rest) for tensor in tensors]
    return below, FoldedBottleneck(*[*grads, weights.rank])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    source, base, slots, down, down_sum, down_bias, up, up_bias, *settings = inputs
    ctx.rank, ctx.activation, ctx.scale, offsets, ctx.longest = settings
    ctx.same = base is None
    ctx.save_for_backward(source, slots, offsets, down, down_sum, down_bias, up, up_bias)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    source, slots, offsets, *tensors = ctx.saved_tensors
    below, grads = bottleneck_gradients(
        gradient,
        source,
        ctx.same,
        slots,
        FoldedBottleneck(*[*tensors, ctx.rank]),
        ctx.activation,
        ctx.scale,
        offsets,
        ctx.longest,
    )
    past = None if ctx.same else gradient
    return below, past, None, *grads.tensors, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_setup)
