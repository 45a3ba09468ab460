"""The bottleneck in few bits as an operator of torch.

Its backward is the plain bottleneck's, with the matrices widened: what lies below an adapter as it
is stored can be trained, and so can scales, norm and biases.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechadapt_kernels.bottleneck.operator import bottleneck_gradients
from speechadapt_kernels.dispatch import learns, runs_plain, uses_triton
from speechadapt_kernels.layout import check_arithmetic, check_dims, check_layout
from speechadapt_kernels.lowbit import folded
from speechadapt_kernels.lowbit.folded import FoldedLowBit, LowBitMatrix, widened


def fused_lowbit(
    source: Tensor,
    weights: FoldedLowBit,
    slots: Tensor,
    activation: str,
    scale: float = 1.0,
    base: Tensor | None = None,
    offsets: Tensor | None = None,
    longest: int = 0,
) -> Tensor:
    """``base + scale * up(act(down(norm(source))))``, each utterance with the adapter of its slot.

    Args:
        source: What the adapters read, ``[batch, frames, dim]`` or packed ``[frames, dim]``.
        weights: As :func:`~speechadapt_kernels.lowbit.folded.fold_lowbit` makes them.
        slots: Adapter of each utterance, ``[batch]``, int32, -1 = none.
        activation: ``gelu``, ``relu``, ``silu`` or ``identity``.
        scale: Factor of the adapters' output.
        base: What it is added to, shape of the source; None = the source.
        offsets: Where each utterance of a packed batch begins, ``[batch + 1]``, int32.
        longest: As :func:`~speechadapt_kernels.bottleneck.operator.fused_bottleneck` takes it.

    Returns:
        Shape of the source; rows without an adapter are the base's, bit for bit. Gradients flow to
        all but the codes: those are trained as rounded floats.

    Raises:
        ValueError: Shapes do not go together.
    """
    check_layout(source, slots, offsets)
    dim = weights.up_bias.shape[-1]
    if source.shape[-1] != dim or (base is not None and base.shape != source.shape):
        raise ValueError(
            f"source {list(source.shape)} and base "
            f"{list((source if base is None else base).shape)} do not fit adapters of {dim} values"
        )
    check_dims(dim)
    check_arithmetic(source, None, activation)
    tensors = (
        *weights.down.tensors,
        *(weights.down_sum, weights.down_bias, weights.norm_weight),
        *weights.up.tensors,
        weights.up_bias,
    )
    if runs_plain(source) and not learns(source, base, *tensors):
        origin = source if base is None else base
        return folded.forward(source, origin, slots, weights, activation, scale, offsets)
    made: Tensor = _forward(
        source, base, slots, *tensors, activation, scale, offsets, longest or len(source)
    )
    return made


@torch.library.custom_op("speechadapt::lowbit_bottleneck", mutates_args=())
def _forward(
    source: Tensor,
    base: Tensor | None,
    slots: Tensor,
    down: Tensor,
    down_scale: Tensor,
    down_offset: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor,
    norm_weight: Tensor | None,
    up: Tensor,
    up_scale: Tensor,
    up_offset: Tensor,
    up_bias: Tensor,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> Tensor:
    weights = FoldedLowBit(
        LowBitMatrix(down, down_scale, down_offset),
        down_sum,
        down_bias,
        norm_weight,
        LowBitMatrix(up, up_scale, up_offset),
        up_bias,
    )
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.lowbit import launch

        return launch.forward(source, base, slots, weights, activation, scale, offsets, longest)
    origin = source if base is None else base
    return folded.forward(source, origin, slots, weights, activation, scale, offsets)


@_forward.register_fake
def _(source: Tensor, *_args: object) -> Tensor:
    return torch.empty_like(source, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    source, base, slots, *weights, ctx.activation, ctx.scale, offsets, ctx.longest = inputs
    ctx.same = base is None
    ctx.save_for_backward(source, slots, offsets, *weights)


@once_differentiable
def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    source, slots, offsets, *tensors = ctx.saved_tensors
    down, up = LowBitMatrix(*tensors[:3]), LowBitMatrix(*tensors[6:9])
    down_sum, down_bias, norm_weight = tensors[3:6]
    weights = FoldedLowBit(down, down_sum, down_bias, norm_weight, up, tensors[9])
    below, wide = bottleneck_gradients(
        gradient,
        source,
        ctx.same,
        slots,
        widened(weights, source.dtype),
        ctx.activation,
        ctx.scale,
        offsets,
        ctx.longest,
    )
    of_down, of_norm = wide.down.to(down_bias.dtype), None
    if norm_weight is not None:
        of_norm = (of_down * down.widened()).sum(1)
        of_down = of_down * norm_weight[:, None]
    return (
        below,
        None if ctx.same else gradient,
        None,
        None,
        *down.gradients(of_down),
        None,  # in those of scale, offset and norm_weight
        wide.down_bias,
        of_norm,
        None,
        *up.gradients(wide.up),
        wide.up_bias,
        *(None, None, None, None),
    )


_forward.register_autograd(_gradients, setup_context=_setup)
