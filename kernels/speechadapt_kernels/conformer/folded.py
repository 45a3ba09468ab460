"""The conformer adapter as the fused operator reads it, and the operator in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import slope
from speechadapt_kernels.bottleneck.folded import (
    Projection,
    as_read,
    owned,
    padded,
    project,
)
from speechadapt_kernels.conformer.weights import ConformerWeights
from speechadapt_kernels.layout import by_slot, neighbours, sole
from speechadapt_kernels.norm import EPSILON, normalised
from speechadapt_kernels.plan import rows_at_once
from speechadapt_kernels.products import add_product
from speechadapt_kernels.slotted import Slotted


@dataclass(frozen=True)
class FoldedConformer(Slotted):
    """Weights of the adapters in their slots.

    Channels are padded with zeros to a power of two, the width. Matrices are in the states' type,
    the rest in float32 at least.

    Attributes:
        down: Down projections of the values, then of the gates, with the LayerNorm's weight,
            ``[slots, 2 * width, dim]``. It lies as :func:`as_read` says.
        down_sum: Sum of each row of ``down``, ``[slots, 2 * width]``. Its gradient is in that of
            ``down``.
        down_bias: With what the LayerNorm's bias gives, ``[slots, 2 * width]``.
        conv: Oldest frame first, ``[slots, kernel, width]``.
        conv_bias: ``[slots, width]``; a BatchNorm is folded into it and ``conv``.
        inner_weight: Of a LayerNorm behind the convolution, ``[slots, width]``; None = none.
        inner_bias: ``[slots, width]``, or None.
        up: Transposed, ``[slots, width, dim]``.
        up_bias: ``[slots, dim]``.
        channels: Without padding: what a LayerNorm averages over.
    """

    down: Tensor
    down_sum: Tensor
    down_bias: Tensor
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

    def vector(x: Tensor) -> Tensor:
        return owned(padded(x, -1), exact)

    down = weights.down.double() * weights.norm_weight.double()[:, None]
    shift = (weights.down.double() @ weights.norm_bias.double()[..., None]).squeeze(-1)
    down = as_read(torch.cat([padded(part, 1) for part in down.split(channels, 1)], 1), dtype)
    down_bias = weights.down_bias.double() + shift
    conv, conv_bias = weights.conv.double(), weights.conv_bias.double()
    inner_weight: Tensor | None = vector(weights.inner_weight)
    inner_bias: Tensor | None = vector(weights.inner_bias)
    if weights.mean is not None and weights.var is not None:
        gain = weights.inner_weight.double() / (weights.var.double() + EPSILON).sqrt()
        conv = conv * gain[..., None]
        conv_bias = (conv_bias - weights.mean) * gain + weights.inner_bias
        inner_weight = inner_bias = None
    return FoldedConformer(
        down,
        # Of the rounded rows: the product with a row's mean has to cancel exactly.
        down.detach().to(exact).sum(-1),
        torch.cat([vector(part) for part in down_bias.split(channels, 1)], 1),
        vector(conv.mT),
        vector(conv_bias),
        inner_weight,
        inner_bias,
        owned(padded(weights.up.mT, 1), dtype),
        owned(weights.up_bias, exact),
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
    """The fused operator in torch, without a way back."""
    frames = source.shape[1]
    most = max(1, rows_at_once(source.flatten(0, -2)) // max(1, frames))  # utterances
    one = sole(slots)
    if one >= 0 and len(source) <= most:
        return _adapted(source, base, weights.parts[one], scale, state)
    out, after = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (base, state))
    for slot, begin, end in neighbours(slots):
        for a in range(begin, end, most):
            mine = slice(a, min(a + most, end))
            if slot < 0:
                out[mine], after[mine] = base[mine], 0
            else:
                each, to = weights.parts[slot], out[mine]
                after[mine] = _adapted(source[mine], base[mine], each, scale, state[mine], to)[1]
    return out, after


def _adapted(
    x: Tensor,
    base: Tensor,
    weights: FoldedConformer,
    scale: float,
    state: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Utterances that share their weights; args as :func:`forward`, and where to write."""
    z, seen = _gated(x, weights, state)
    rows, up = z.flatten(0, -2), weights.up.to(z.dtype)
    to = None if out is None else out.flatten(0, -2)
    made = add_product(base.flatten(0, -2), rows, up, weights.up_bias, scale, to)
    # The state is not a part of what holds all frames.
    after = seen[:, x.shape[1] :].to(state.dtype, copy=True)
    return made.contiguous().view(base.shape), after


def _gated(x: Tensor, weights: FoldedConformer, state: Tensor) -> tuple[Tensor, Tensor]:
    """What the up projection is given, and the gated values behind the state before them.

    The sums of :func:`_passed` for utterances that share their weights: no copies of those, and
    nothing is kept.
    """
    exact, width = weights.up_bias.dtype, weights.conv.shape[-1]
    normal, _ = normalised(x.to(exact))
    values = F.glu(F.linear(normal, weights.down.to(exact), weights.down_bias), -1)
    seen = torch.cat((state.to(exact), values), 1)
    # Channels lie innermost: as an image of one row, they need not be turned for the convolution.
    image, kernel = seen.mT[:, :, None], weights.conv.mT[:, None, None]
    hidden = F.conv2d(image, kernel, weights.conv_bias, groups=width)[:, :, 0].mT
    if weights.inner_weight is not None and weights.inner_bias is not None:
        real = slice(weights.channels)
        inner = weights.inner_weight[real], weights.inner_bias[real]
        hidden = F.layer_norm(hidden[..., real], (weights.channels,), *inner, EPSILON)
        if weights.channels < width:
            hidden = F.pad(hidden, (0, width - weights.channels))
    return F.silu(hidden), seen


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
    each, exact = weights.of(slots.clamp(min=0)), weights.up_bias.dtype
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

    return (
        below.to(source.dtype),
        dseen[:, : kernel - 1].to(state.dtype),
        FoldedConformer(
            summed(down, weights.down.dtype),
            torch.zeros_like(weights.down_sum),
            summed(both.sum(1)),
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
    projection = project(x, each.down.to(x.dtype), each.down_sum)
    values, gates = (projection.hidden + each.down_bias[:, None]).chunk(2, -1)
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
