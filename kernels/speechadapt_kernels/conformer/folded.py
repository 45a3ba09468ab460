"""The conformer adapter as the fused operator reads it, and the operator in torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import slope
from speechadapt_kernels.bottleneck.folded import Projection, padded_width, project
from speechadapt_kernels.conformer.weights import ConformerWeights
from speechadapt_kernels.layout import by_slot, joined, neighbours
from speechadapt_kernels.norm import EPSILON, normalised


@dataclass(frozen=True)
class FoldedConformer:
    """Weights of the adapters in their slots.

    Channels are padded with zeros to a power of two, the width. Matrices are in the states' type,
    the rest in float32 at least.

    Attributes:
        value: Down projection of the values with the LayerNorm's weight, ``[slots, width, dim]``.
        gate: That of the gates, same shape.
        value_sum: Sum of each row of ``value``, ``[slots, width]``; so ``gate_sum``. Its gradient
            is in that of ``value``.
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
    """Make what the fused operator reads, for states of ``dtype``; gradients flow through."""
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
        value.detach().to(exact).sum(-1),
        gate.detach().to(exact).sum(-1),
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
    if not len(slots):
        return base.clone(), state.clone()
    parts, after = [], []
    for slot, mine in neighbours(slots):
        if slot < 0:
            parts.append(base[mine].clone())
            after.append(torch.zeros_like(state[mine]))
        else:
            one = _of(weights, slot)
            delta, seen = _adapted(source[mine], one, state[mine])
            parts.append(torch.add(base[mine], delta, alpha=scale).to(base.dtype))
            # Not a part of what holds all frames.
            after.append(seen[:, source.shape[1] :].to(state.dtype, copy=True))
    return joined(parts), joined(after)


def _adapted(x: Tensor, weights: FoldedConformer, state: Tensor) -> tuple[Tensor, Tensor]:
    """What one adapter adds to states, and the gated values behind the state before them.

    The sums of :func:`_passed` for utterances that share their weights: no copies of those, and
    nothing is kept.
    """
    exact, width = weights.up_bias.dtype, weights.conv.shape[-1]
    down = torch.cat((weights.value, weights.gate)).to(exact)
    bias = torch.cat((weights.value_bias, weights.gate_bias))
    normal, _ = normalised(x.to(exact))
    seen = torch.cat((state.to(exact), F.glu(F.linear(normal, down, bias), -1)), 1)
    kernel = weights.conv.mT[:, None]
    hidden = F.conv1d(seen.mT, kernel, weights.conv_bias, groups=width).mT
    if weights.inner_weight is not None and weights.inner_bias is not None:
        real = slice(weights.channels)
        inner = weights.inner_weight[real], weights.inner_bias[real]
        hidden = F.layer_norm(hidden[..., real], (weights.channels,), *inner, EPSILON)
        hidden = F.pad(hidden, (0, width - weights.channels))
    return F.linear(F.silu(hidden), weights.up.to(exact).mT, weights.up_bias), seen


def backward(
    gradient: Tensor,
    of_state: Tensor,
    source: Tensor,
    slots: Tensor,
    weights: FoldedConformer,
    scale: float,
    state: Tensor,
) -> tuple[Tensor, Tensor, FoldedConformer]:
    """Gradients of the source (without what goes past the adapter), the state and the weights.

    Frames behind the last that has a gradient, such as padding, give none, whatever they hold.
    """
    # Of any adapter where an utterance has none.
    each, exact = _of(weights, slots.clamp(min=0)), weights.up_bias.dtype
    count, kernel, width = weights.conv.shape
    none = (slots < 0)[:, None, None]
    dy, ds = (d.to(exact).masked_fill(none, 0) for d in (gradient, of_state))
    heard = dy.any(-1, keepdim=True).flip(1).cumsum(1).flip(1) > 0
    heard = heard | ds.flatten(1).any(-1)[:, None, None]
    made = _passed(
        source.to(exact).masked_fill(~heard, 0), each, state.to(exact).masked_fill(none, 0)
    )
    up_bias = scale * dy.sum(1)
    up = scale * (F.silu(made.hidden).mT @ dy)
    dh = scale * (dy @ each.up.to(exact).mT) * slope("silu", made.hidden)
    inner_weight = inner_bias = None
    if each.inner_weight is not None:
        inner_weight, inner_bias = (dh * made.normal).sum(1), dh.sum(1)
        # Of real channels alone: those of the padding take no part in the means.
        dn = (dh * each.inner_weight[:, None])[..., : weights.channels]
        normal = made.normal[..., : weights.channels]
        by_norm = (dn * normal).mean(-1, keepdim=True)
        dn = made.rstd * (dn - dn.mean(-1, keepdim=True) - normal * by_norm)
        dh = F.pad(dn, (0, width - weights.channels))
    conv, conv_bias = _slid(made.seen, dh), dh.sum(1)
    dseen = _slid(F.pad(dh, (0, 0, kernel - 1, kernel - 1)), each.conv.flip(1))
    dseen = dseen + F.pad(ds, (0, 0, source.shape[1], 0))
    dv = dseen[:, kernel - 1 :] * made.opened
    both = torch.cat((dv, dv * made.values * (1 - made.opened)), -1)
    below, down = made.projection.backward(both)

    def summed(parts: Tensor, dtype: torch.dtype = exact) -> Tensor:
        return by_slot(parts, slots, count).to(dtype)

    value, gate = (summed(part, weights.value.dtype) for part in down.split(width, 1))
    value_bias, gate_bias = (summed(part) for part in both.sum(1).split(width, 1))
    return (
        below.to(source.dtype),
        dseen[:, : kernel - 1].to(state.dtype),
        FoldedConformer(
            value,
            gate,
            torch.zeros_like(weights.value_sum),
            torch.zeros_like(weights.gate_sum),
            value_bias,
            gate_bias,
            summed(conv),
            summed(conv_bias),
            None if inner_weight is None else summed(inner_weight),
            None if inner_bias is None else summed(inner_bias),
            summed(up, weights.up.dtype),
            summed(up_bias),
            weights.channels,
        ),
    )


@dataclass(frozen=True)
class _Passed:
    """What utterances are on their way to the up projection.

    Attributes:
        projection: Values and gates side by side.
        values: ``[batch, frames, width]``.
        opened: How far the gates are, same shape.
        seen: Gated values behind the state, ``[batch, kernel - 1 + frames, width]``.
        normal: What the convolution made of them, normalised where a LayerNorm does that,
            ``[batch, frames, width]``.
        rstd: Of the LayerNorm, ``[batch, frames, 1]``; one where there is none.
        hidden: Before the activation, ``[batch, frames, width]``.
    """

    projection: Projection
    values: Tensor
    opened: Tensor
    seen: Tensor
    normal: Tensor
    rstd: Tensor
    hidden: Tensor


def _passed(x: Tensor, each: FoldedConformer, state: Tensor) -> _Passed:
    """Of states ``[batch, frames, dim]`` and each utterance's weights."""
    down = torch.cat((each.value, each.gate), 1).to(x.dtype)
    projection = project(x, down, torch.cat((each.value_sum, each.gate_sum), 1))
    bias = torch.cat((each.value_bias, each.gate_bias), 1)
    values, gates = (projection.hidden + bias[:, None]).chunk(2, -1)
    opened = gates.sigmoid()
    seen = torch.cat((state, values * opened), 1)
    hidden = _slid(seen, each.conv) + each.conv_bias[:, None]
    if each.inner_weight is None or each.inner_bias is None:
        return _Passed(projection, values, opened, seen, hidden, x.new_ones(1), hidden)
    real = hidden[..., : each.channels]
    normal, rstd = normalised(real)
    normal = F.pad(normal, (0, hidden.shape[-1] - each.channels))
    hidden = normal * each.inner_weight[:, None] + each.inner_bias[:, None]
    return _Passed(projection, values, opened, seen, normal, rstd, hidden)


def _of(weights: FoldedConformer, slots: int | Tensor) -> FoldedConformer:
    """The weights of one slot, or of each utterance's, without or with a first axis."""
    held: dict[str, Any] = {k: t for k, t in vars(weights).items() if isinstance(t, Tensor)}
    return replace(weights, **{name: tensor[slots] for name, tensor in held.items()})


def _slid(values: Tensor, kernel: Tensor) -> Tensor:
    """Each channel's kernel slid along its frames.

    Args:
        values: ``[batch, frames, width]``.
        kernel: ``[batch, size, width]``.

    Returns:
        ``[batch, frames - size + 1, width]``.
    """
    channels = kernel.mT.flatten(0, 1)[:, None]
    slid = F.conv1d(values.mT.flatten(0, 1)[None], channels, groups=len(channels))
    return slid[0].unflatten(0, kernel.shape[::2]).mT
