"""The algebra of the fused operator: LayerNorm folded into the down projection.

With ``A' = A diag(γ)``, ``c = A' 1`` and ``d = A β + a``, the hidden state is
``h = (A' x - μ c) / σ + d``: mean and variance of a row are found in the same pass over it as the
product. Both passes of the backward stay in the width of the bottleneck too: the two row sums of a
LayerNorm's gradient are ``dh·c`` and ``dh·(h - d)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS, slope
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.layout import by_slot, spans

EPSILON = 1e-5  # of LayerNorm, as torch's default
SMALLEST_WIDTH = 16  # of a tile of a tensor core


@dataclass(frozen=True)
class FoldedBottleneck:
    """Weights of the adapters in their slots, as the fused operator reads them.

    Attributes:
        down: ``[slots, width, dim]``, the LayerNorm's weight multiplied in; width is the bottleneck
            padded with zeros to a power of two.
        down_sum: Sum of each row of ``down``, ``[slots, width]``; None = no LayerNorm. In float32
            at least, like both biases.
        down_bias: ``[slots, width]``, with what the LayerNorm's bias gives.
        up: The up projection transposed, ``[slots, width, dim]``.
        up_bias: ``[slots, dim]``.
    """

    down: Tensor
    down_sum: Tensor | None
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


def fold(weights: BottleneckWeights, dtype: torch.dtype) -> FoldedBottleneck:
    """Make what the fused operator reads; gradients flow through.

    Args:
        weights: Stacked, in float32 or float64.
        dtype: Of the states that the operator will be given.
    """
    exact = torch.promote_types(dtype, torch.float32)
    down, down_bias = weights.down.to(exact), weights.down_bias.to(exact)
    down_sum = None
    if weights.norm_weight is not None and weights.norm_bias is not None:
        down_bias = down_bias + (down @ weights.norm_bias.to(exact)[..., None]).squeeze(-1)
        down = down * weights.norm_weight.to(exact)[:, None]
    width = down.shape[1]
    room = max(SMALLEST_WIDTH, 1 << (width - 1).bit_length()) - width
    down = F.pad(down, (0, 0, 0, room)).to(dtype)
    if weights.norm_weight is not None:
        # Of the rounded rows: the product with a row's mean has to cancel exactly.
        down_sum = down.to(exact).sum(-1)
    return FoldedBottleneck(
        down.contiguous(),
        down_sum,
        F.pad(down_bias, (0, room)),
        F.pad(weights.up.mT, (0, 0, 0, room)).to(dtype).contiguous(),
        weights.up_bias.to(exact),
    )


def forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    offsets: Tensor | None,
) -> Tensor:
    """The fused operator in torch."""
    rows, out = source.flatten(0, -2), base.flatten(0, -2).clone()
    for _, slot, span in spans(source, slots, offsets):
        if slot >= 0:
            x = rows[span].to(weights.up_bias.dtype)
            hidden, *_ = _hidden(x, weights, slot)
            z = ACTIVATIONS[activation](hidden)
            delta = torch.addmm(weights.up_bias[slot], z, weights.up[slot].to(z.dtype))
            out[span] = (out[span] + scale * delta).to(out.dtype)
    return out.view(source.shape)


def backward(
    gradient: Tensor,
    source: Tensor,
    slots: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    offsets: Tensor | None,
) -> tuple[Tensor, FoldedBottleneck]:
    """Gradients of the source (without what goes past the adapter) and of the weights."""
    dim, exact = source.shape[-1], weights.up_bias.dtype
    rows, above = source.flatten(0, -2), gradient.flatten(0, -2)
    below = torch.zeros_like(rows)
    count, width = weights.down.shape[:2]
    shape = (len(slots), width, dim)
    down, up = (torch.zeros(shape, dtype=exact, device=source.device) for _ in range(2))
    down_sum, down_bias = (down.new_zeros(shape[:2]) for _ in range(2))
    up_bias = down.new_zeros(len(slots), dim)
    for place, slot, span in spans(source, slots, offsets):
        if slot < 0:
            continue
        x, dy = rows[span].to(exact), above[span].to(exact)
        a = weights.down[slot].to(exact)
        hidden, mean, rstd = _hidden(x, weights, slot)
        dz = scale * (dy @ weights.up[slot].to(exact).mT)
        dh = dz * slope(activation, hidden)
        scaled = dh * rstd
        dx = scaled @ a
        if weights.down_sum is not None:
            by_mean = (scaled @ weights.down_sum[slot])[:, None] / dim
            by_norm = (scaled * (hidden - weights.down_bias[slot])).sum(-1, keepdim=True) / dim
            dx = dx - by_mean - (x - mean) * rstd * by_norm
            down_sum[place] = -(mean * scaled).sum(0)
        below[span] = dx.to(below.dtype)
        down[place] = scaled.mT @ x
        down_bias[place] = dh.sum(0)
        up[place] = scale * (ACTIVATIONS[activation](hidden).mT @ dy)
        up_bias[place] = scale * dy.sum(0)
    sums = None if weights.down_sum is None else by_slot(down_sum, slots, count)
    return below.view(source.shape), FoldedBottleneck(
        by_slot(down, slots, count).to(weights.down.dtype),
        sums,
        by_slot(down_bias, slots, count),
        by_slot(up, slots, count).to(weights.up.dtype),
        by_slot(up_bias, slots, count),
    )


def _hidden(x: Tensor, weights: FoldedBottleneck, slot: int) -> tuple[Tensor, Tensor, Tensor]:
    """Before the activation, ``[rows, width]``, and each row's mean and 1/σ, ``[rows, 1]``."""
    product = x @ weights.down[slot].to(x.dtype).mT
    if weights.down_sum is None:
        return product + weights.down_bias[slot], x.new_zeros(1), x.new_ones(1)
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + EPSILON)
    return rstd * (product - mean * weights.down_sum[slot]) + weights.down_bias[slot], mean, rstd
