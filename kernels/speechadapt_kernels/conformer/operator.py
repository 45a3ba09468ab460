"""The conformer adapter as an operator of torch, for whole utterances and streams.

Its backward is plain torch on every device, and nothing in it waits for one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechadapt_kernels.conformer import folded
from speechadapt_kernels.conformer.folded import FoldedConformer
from speechadapt_kernels.dispatch import learns, runs_plain, uses_triton
from speechadapt_kernels.layout import check_arithmetic, check_dims, check_layout


def fused_conformer(
    source: Tensor,
    base: Tensor,
    weights: FoldedConformer,
    slots: Tensor,
    scale: float = 1.0,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The adapter of its slot on each utterance, which goes on where ``state`` left it.

    Args:
        source: What the adapters read, ``[batch, frames, dim]``; dim is a multiple of 64.
        base: What their output is added to, same shape.
        weights: As :func:`~speechadapt_kernels.conformer.folded.fold_conformer` makes them.
        slots: Adapter of each utterance, ``[batch]``, int32, -1 = none.
        scale: Factor of the adapters' output.
        state: What the call on the frames before gave back; None = there were none.

    Returns:
        Shape of ``base``, rows without an adapter bit for bit; and the state after the last frame,
        ``[batch, kernel - 1, width]``, which is only of use where every frame is one of sound.
        Gradients flow from both, also to the state before; to all weights but the sums.

    Raises:
        ValueError: Shapes or types do not go together, or no kernel is made for them.
    """
    check_layout(source, slots, None)
    dim, (_, kernel, width) = weights.up.shape[-1], weights.conv.shape
    if source.shape != base.shape or source.shape[-1] != dim:
        raise ValueError(
            f"source {list(source.shape)} and base {list(base.shape)} do not fit adapters of {dim} "
            "values"
        )
    check_dims(dim)
    check_arithmetic(source, weights.down, "silu")
    wanted = (len(slots), kernel - 1, width)
    if state is None:
        state = source.new_zeros(wanted)
    elif state.shape != wanted or state.dtype != source.dtype:
        raise ValueError(
            f"a state {list(state.shape)} of {state.dtype} is none of these: expected "
            f"{list(wanted)} of {source.dtype}"
        )
    if runs_plain(source) and not learns(source, base, state, *weights.tensors):
        return folded.forward(source, base, slots, weights, scale, state)
    made: tuple[Tensor, Tensor] = _forward(
        source, base, slots, state, *weights.tensors, weights.channels, scale
    )
    return made


@torch.library.custom_op("speechadapt::conformer", mutates_args=())
def _forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    state: Tensor,
    down: Tensor,
    down_sum: Tensor,
    down_bias: Tensor,
    conv: Tensor,
    conv_bias: Tensor,
    inner_weight: Tensor | None,
    inner_bias: Tensor | None,
    up: Tensor,
    up_bias: Tensor,
    channels: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    weights = FoldedConformer(
        *(down, down_sum, down_bias, conv, conv_bias),
        *(inner_weight, inner_bias, up, up_bias, channels),
    )
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.conformer import launch

        return launch.forward(source, base, slots, weights, scale, state)
    return folded.forward(source, base, slots, weights, scale, state)


@_forward.register_fake
def _(
    source: Tensor, base: Tensor, slots: Tensor, state: Tensor, *_args: object
) -> tuple[Tensor, Tensor]:
    kept = torch.contiguous_format
    return torch.empty_like(base, memory_format=kept), torch.empty_like(state, memory_format=kept)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    source, _, slots, state, *weights, ctx.channels, ctx.scale = inputs
    ctx.save_for_backward(source, slots, state, *weights)


@once_differentiable
def _gradients(ctx: Any, gradient: Tensor, of_state: Tensor) -> tuple[Tensor | None, ...]:
    source, slots, state, *weights = ctx.saved_tensors
    below, before, grads = folded.backward(
        gradient,
        of_state,
        source,
        slots,
        FoldedConformer(*[*weights, ctx.channels]),
        ctx.scale,
        state,
    )
    return below, gradient, None, before, *grads.tensors, None, None


_forward.register_autograd(_gradients, setup_context=_setup)
