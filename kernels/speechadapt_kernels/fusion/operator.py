"""The folded fusion as an operator of torch.

The gradient is the operator's own, in plain torch on every device; the re-associated form is none
of its own. So what is trained is what is served, shares of a router included, nothing but what goes
in is kept for the way back, and folding carries gradients on to adapters, query, key and value. But
it multiplies matrices as wide as the model, in float64, at each step: on a CPU, where that has
fewer than some two thousand frames, attention is trained faster by
:func:`~speechadapt_kernels.fusion.reassociated.reassociated_fusion`, which is plain torch too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechadapt_kernels.dispatch import uses_triton
from speechadapt_kernels.fusion import folded
from speechadapt_kernels.fusion.folded import FoldedFusion, ScoreWeights
from speechadapt_kernels.layout import check_arithmetic, check_dims


def fused_fusion(
    source: Tensor,
    base: Tensor,
    weights: FoldedFusion,
    activation: str,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``base`` + what several adapters make of ``source``, each frame in its own shares.

    Args:
        source: What all adapters read, ``[..., dim]``; dim is a multiple of 64.
        base: What the mixture is added to, same shape.
        weights: Of :func:`~speechadapt_kernels.fusion.folded.fold_fusion` (attention makes the
            shares), or of ``fold_shares`` (they are given).
        activation: ``gelu``, ``relu`` or ``silu``.
        shares: Of a router, broadcasting to ``[..., adapters]``: one for each frame, or one for
            each utterance ``[batch, 1, adapters]``.

    Returns:
        Shape of ``base``, and the shares ``[..., adapters]`` in float32 at least. Gradients flow
        from both, to all but ``down_sum``.

    Raises:
        ValueError: Shapes or types do not go together, no kernel is made for them, or shares are
            given or missing against the weights.
    """
    count, _, dim = weights.down.shape
    if source.shape != base.shape or source.shape[-1] != dim:
        raise ValueError(
            f"source {list(source.shape)} and base {list(base.shape)} do not fit adapters of {dim} "
            "values"
        )
    check_dims(dim)
    check_arithmetic(source, weights.down, activation)
    if (shares is None) != (weights.scores is not None):
        raise ValueError("shares are given where the weights have no scores, and only there")
    if shares is not None:
        shares = shares.expand(*source.shape[:-1], count)
    scores: list[Any] = [None] * 4 if weights.scores is None else [*vars(weights.scores).values()]
    made: tuple[Tensor, Tensor] = _forward(
        source,
        base,
        weights.down,
        weights.down_sum,
        weights.down_bias,
        weights.value,
        weights.value_bias,
        *scores,
        activation,
        shares,
    )
    return made


@torch.library.custom_op("speechadapt::fusion", mutates_args=())
def _forward(
    source: Tensor,
    base: Tensor,
    down: Tensor,
    down_sum: Tensor | None,
    down_bias: Tensor,
    value: Tensor,
    value_bias: Tensor,
    score_down: Tensor | None,
    score_bias: Tensor | None,
    score_direct: Tensor | None,
    score_constant: Tensor | None,
    activation: str,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:
    scores = [score_down, score_bias, score_direct, score_constant]
    weights = _weights([down, down_sum, down_bias, value, value_bias, *scores])
    if uses_triton(source.device, source.dtype):
        from speechadapt_kernels.fusion import launch

        return launch.forward(source, base, weights, activation, shares)
    out, made = folded.forward(source, base, weights, activation, shares)
    return out, made.clone() if shares is not None else made


@_forward.register_fake
def _(source: Tensor, base: Tensor, down: Tensor, *_args: object) -> tuple[Tensor, Tensor]:
    exact = torch.promote_types(source.dtype, torch.float32)
    return torch.empty_like(base, memory_format=torch.contiguous_format), source.new_empty(
        *source.shape[:-1], len(down), dtype=exact
    )


def _weights(tensors: list[Any]) -> FoldedFusion:
    scores = None if tensors[-1] is None else ScoreWeights(*tensors[-4:])
    return FoldedFusion(*[*tensors[:-4], scores])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    source, _, *weights, ctx.activation, shares = inputs
    ctx.save_for_backward(source, shares, *weights)


@once_differentiable
def _gradients(ctx: Any, gradient: Tensor, of_shares: Tensor) -> tuple[Tensor | None, ...]:
    source, shares, *weights = ctx.saved_tensors
    below, grads, given = folded.backward(
        gradient, of_shares, source, _weights(weights), ctx.activation, shares
    )
    *plain, scores = vars(grads).values()
    of_scores = [None] * 4 if scores is None else vars(scores).values()
    of_given = None if shares is None else given.to(shares.dtype)
    return below, gradient, *plain, *of_scores, None, of_given


_forward.register_autograd(_gradients, setup_context=_setup)
