"""The conformer adapter as the fused operator reads it, and the operator in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.bottleneck.folded import EPSILON, padded_width
from speechadapt_kernels.conformer.weights import ConformerWeights


@dataclass(frozen=True)
class FoldedConformer:
    """Weights of the adapters in their slots.

    Channels are padded with zeros to a power of two, the width. Matrices are in the states' type,
    the rest in float32 at least.

    Attributes:
        value: Down projection of the values with the LayerNorm's weight, ``[slots, width, dim]``.
        gate: That of the gates, same shape.
        value_sum: Sum of each row of ``value``, ``[slots, width]``; so ``gate_sum``.
        gate_sum: ``[slots, width]``.
        value_bias: With what the LayerNorm's bias gives, ``[slots, width]``; so ``gate_bias``.
        gate_bias: ``[slots, width]``.
        conv: Oldest frame first, ``[slots, kernel, width]``.
        conv_bias: ``[slots, width]``; a BatchNorm is folded into it and ``conv``.
        inner_weight: Of a LayerNorm behind the convolution, ``[slots, width]``; None = none.
        inner_bias: ``[slots, width]``, or None.
        up: Transposed, ``[slots, width, dim]``.
        up_bias: ``[slots, dim]``.
        channels: Without padding: what a LayerNorm averages over.
    """

    value: Tensor
    gate: Tensor
    value_sum: Tensor
    gate_sum: Tensor
    value_bias: Tensor
    gate_bias: Tensor
    conv: Tensor
    conv_bias: Tensor
    inner_weight: Tensor | None
    inner_bias: Tensor | None
    up: Tensor
    up_bias: Tensor
    channels: int


def fold_conformer(weights: ConformerWeights, dtype: torch.dtype) -> FoldedConformer:
    """Make what the fused operator reads, for states of ``dtype``."""
    exact = torch.promote_types(dtype, torch.float32)
    channels = weights.conv.shape[1]
    room = padded_width(channels) - channels

    def rows(matrix: Tensor) -> Tensor:
        return F.pad(matrix, (0, 0, 0, room)).to(dtype).contiguous()

    def vector(x: Tensor) -> Tensor:
        return F.pad(x, (0, room)).to(exact)

    down = weights.down.double() * weights.norm_weight.double()[:, None]
    shift = (weights.down.double() @ weights.norm_bias.double()[..., None]).squeeze(-1)
    value, gate = (rows(part) for part in down.split(channels, 1))
    value_bias, gate_bias = (
        vector(part) for part in (weights.down_bias.double() + shift).split(channels, 1)
    )
    conv, conv_bias = weights.conv.double(), weights.conv_bias.double()
    inner_weight: Tensor | None = vector(weights.inner_weight)
    inner_bias: Tensor | None = vector(weights.inner_bias)
    if weights.mean is not None and weights.var is not None:
        gain = weights.inner_weight.double() / (weights.var.double() + EPSILON).sqrt()
        conv = conv * gain[..., None]
        conv_bias = (conv_bias - weights.mean) * gain + weights.inner_bias
        inner_weight = inner_bias = None
    return FoldedConformer(
        value,
        gate,
        # Of the rounded rows: the product with a row's mean has to cancel exactly.
        value.to(exact).sum(-1),
        gate.to(exact).sum(-1),
        value_bias,
        gate_bias,
        vector(conv.mT).contiguous(),
        vector(conv_bias),
        inner_weight,
        inner_bias,
        rows(weights.up.mT),
        weights.up_bias.to(exact),
        channels,
    )


def forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    weights: FoldedConformer,
    scale: float,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """The fused operator in torch."""
    exact = weights.up_bias.dtype
    x = source.to(exact)
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + EPSILON)
    kernel = weights.conv.shape[1]
    kept = torch.contiguous_format
    out, states = base.clone(memory_format=kept), torch.zeros_like(state, memory_format=kept)
    for row, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        values, gates = (
            rstd[row] * (x[row] @ matrix[slot].to(exact).mT - mean[row] * sums[slot]) + bias[slot]
            for matrix, sums, bias in (
                (weights.value, weights.value_sum, weights.value_bias),
                (weights.gate, weights.gate_sum, weights.gate_bias),
            )
        )
        seen = torch.cat((state[row].to(exact), values * gates.sigmoid()))
        windows = seen.unfold(0, kernel, 1)  # [frames, width, kernel]
        hidden = (windows * weights.conv[slot].mT).sum(-1) + weights.conv_bias[slot]
        if weights.inner_weight is not None and weights.inner_bias is not None:
            real = F.layer_norm(hidden[:, : weights.channels], (weights.channels,))
            hidden = F.pad(real, (0, hidden.shape[1] - weights.channels))
            hidden = hidden * weights.inner_weight[slot] + weights.inner_bias[slot]
        delta = F.silu(hidden) @ weights.up[slot].to(exact) + weights.up_bias[slot]
        out[row] = (out[row] + scale * delta).to(out.dtype)
        states[row] = seen[len(seen) - kernel + 1 :].to(state.dtype)
    return out, states
