"""The algebra of the fused operator: LayerNorm folded into the down projection.

With ``A' = A diag(γ)``, ``c = A' 1`` and ``d = A β + a``, the hidden state is
``h = (A' x - μ c) / σ + d``: mean and variance of a row are found in the same pass over it as the
product. Both passes of the backward stay in the width of the bottleneck too: the two row sums of a
LayerNorm's gradient are ``dh·c`` and ``dh·(h - d)``. What c adds to the gradient of A', ``-μ dh/σ``
in every column, is in that of A' at once, ``dh/σ (x - μ)'``: rounded apart, a large mean would
drown the rest. So c itself is given none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate, slope
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.dispatch import learns
from speechadapt_kernels.layout import by_run, by_slot, spans
from speechadapt_kernels.norm import normalised
from speechadapt_kernels.plan import runs_apart
from speechadapt_kernels.products import add_product, product
from speechadapt_kernels.slotted import Slotted

SMALLEST_WIDTH = 16  # of a tile of a tensor core
_KEPT = torch.contiguous_format  # gradients lie as the operator says, whatever goes in


@dataclass(frozen=True)
class FoldedBottleneck(Slotted):
    """Weights of the adapters in their slots, as the fused operator reads them.

    What they give may be several outputs side by side (slices, as of a fused projection), each
    with ``rank`` columns of the bottleneck of its own.

    Attributes:
        down: ``[slots, width, dim]``, the LayerNorm's weight multiplied in; width is the bottleneck
            padded with zeros to a power of two. It lies as :func:`as_read` says.
        down_sum: Sum of each row of ``down``, ``[slots, width]``; None = no LayerNorm. In float32
            at least, like both biases. Its gradient is in that of ``down``.
        down_bias: ``[slots, width]``, with what the LayerNorm's bias gives; None = no biases.
        up: The up projection transposed, ``[slots, width, out / slices]``.
        up_bias: ``[slots, out]``; None = no biases.
        rank: Columns of the bottleneck that each slice reads; the width where there is one slice.
        slices: Outputs side by side.
    """

    down: Tensor
    down_sum: Tensor | None
    down_bias: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    rank: int
    slices: int = 1

    @property
    def exact(self) -> torch.dtype:
        """What is computed in."""
        return torch.float32 if self.down.dtype.itemsize < 4 else self.down.dtype


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
        shift = weights.norm_bias.to(exact)[..., None]
        down_bias = torch.baddbmm(down_bias[..., None], down, shift).squeeze(-1)
        down = down * weights.norm_weight.to(exact)[:, None]
    rank = down.shape[1]
    down = as_read(padded(down, 1), dtype)
    if weights.norm_weight is not None:
        # Of the rounded rows: the product with a row's mean has to cancel exactly.
        down_sum = down.detach().to(exact).sum(-1)
    return FoldedBottleneck(
        down,
        down_sum,
        owned(padded(down_bias, 1), exact),
        owned(padded(weights.up.mT, 1), dtype),
        owned(weights.up_bias, exact),
        rank,
    )


def padded(x: Tensor, axis: int) -> Tensor:
    """With zeros along an axis, up to a width that the operators take."""
    room = padded_width(x.shape[axis]) - x.shape[axis]
    behind = -1 - axis if axis < 0 else x.dim() - 1 - axis  # axes
    return F.pad(x, (0, 0) * behind + (0, room)) if room else x


def owned(x: Tensor, dtype: torch.dtype) -> Tensor:
    """One value behind the other, as kernels read; a copy, unless it learns: then it is folded anew
    at every step."""
    if learns(x):
        return x.to(dtype).contiguous()
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def as_read(down: Tensor, dtype: torch.dtype) -> Tensor:
    """A down projection as :func:`owned`; on a CPU, unless it learns, column by column: products of
    few rows then take half as long."""
    if down.device.type == "cpu" and not learns(down):
        return owned(down.mT, dtype).mT
    return owned(down, dtype)


def fold_average(
    weights: BottleneckWeights, shares: Tensor, dtype: torch.dtype
) -> FoldedBottleneck:
    """All of them in constant shares as one wide adapter: bottlenecks side by side.

    Args:
        weights: Stacked, of ``n`` adapters.
        shares: ``[n]``, such as ``1 / n`` for their mean.
        dtype: Of the states that the operator will be given.

    Returns:
        One slot. Its width is n times that of each, padded.
    """
    exact = torch.promote_types(dtype, torch.float32)
    weighed = replace(weights, up=shares[:, None, None] * weights.up)
    made = fold(weighed, dtype)
    width = made.down.shape[0] * made.down.shape[1]

    def side_by_side(tensor: Tensor) -> Tensor:
        return padded(tensor.flatten(0, 1), 0)[None].contiguous()

    return FoldedBottleneck(
        as_read(side_by_side(made.down), dtype),
        None if made.down_sum is None else side_by_side(made.down_sum),
        None if made.down_bias is None else side_by_side(made.down_bias),
        side_by_side(made.up),
        (shares.to(exact) @ weights.up_bias.to(exact))[None],
        width,
    )


@dataclass(frozen=True)
class Projection:
    """What the folded down projection makes of rows, and its way back.

    Attributes:
        normal: The rows, normalised where there is a LayerNorm, ``[..., rows, dim]``.
        rstd: One over each row's deviation, ``[..., rows, 1]``; one without a LayerNorm.
        down: ``[..., width, dim]``, in the rows' type.
        down_sum: ``[..., width]``; None = no LayerNorm.
        hidden: Without the bias, ``[..., rows, width]``.
    """

    normal: Tensor
    rstd: Tensor
    down: Tensor
    down_sum: Tensor | None
    hidden: Tensor

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the rows and of ``down`` from that of ``hidden``.

        ``down`` has one for each batch of rows, if several share it.
        """
        below, dim = gradient @ self.down, self.normal.shape[-1]
        if self.down_sum is not None:
            by_mean = gradient @ self.down_sum[..., None] / dim
            by_norm = (gradient * self.hidden).sum(-1, keepdim=True) / dim
            below = self.rstd * (below - by_mean - self.normal * by_norm)
        return below, gradient.mT @ self.normal


def project(rows: Tensor, down: Tensor, down_sum: Tensor | None) -> Projection:
    """Through the folded down projection; args as of :class:`Projection`."""
    rstd = rows.new_ones(1)
    if down_sum is not None:
        rows, rstd = normalised(rows)
    return Projection(rows, rstd, down, down_sum, rows @ down.mT)


def padded_width(width: int) -> int:
    """The next power of two that a tensor core can work with."""
    return max(SMALLEST_WIDTH, 1 << (width - 1).bit_length())


def forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    offsets: Tensor | None,
) -> Tensor:
    """The fused operator in torch, which can differentiate it."""
    if offsets is None and _together(source, slots):
        return adapted(source, base, weights.of(slots), activation, scale).contiguous()
    learning = learns(source, base, *weights.tensors)
    each = weights.apart() if learning else weights.parts

    def mine(rows: Tensor, past: Tensor, slot: int, out: Tensor | None) -> Tensor:
        return adapted(rows, past, each[slot], activation, scale, out)

    return by_run(source, base, slots, offsets, mine, learning)


def _together(source: Tensor, slots: Tensor) -> bool:
    """Whether the utterances of a batch are better served by one product than one by one."""
    if slots.shape[0] < 2 or source.device.type != "cpu" or runs_apart(source):
        return False
    used = set(slots.tolist())
    return len(used) > 1 and min(used) >= 0


def adapted(
    x: Tensor,
    past: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    out: Tensor | None = None,
) -> Tensor:
    """``past`` and what adapters make of ``x``, one of all rows or each of its utterance.

    Args:
        x: What they read, ``[rows, dim]`` or ``[batch, rows, dim]``.
        past: What it is added to, ``[rows, out]`` or ``[batch, rows, out]``.
        weights: Without a first axis, or with one as long as the batch.
        activation: As the operator takes it.
        scale: As the operator takes it.
        out: Where to write it; None = anew.
    """
    down, up = weights.down, weights.up
    if x.dtype.itemsize < 4:
        x, down, up = (tensor.to(weights.exact) for tensor in (x, down, up))
    if weights.down_sum is not None:
        x, _ = normalised(x)
    z = activate(activation, product(x, down.mT, weights.down_bias))
    each = up.shape[-1]
    slices = past.shape[-1] // each
    if slices == 1:
        return add_product(past, z, up, weights.up_bias, scale, out)
    parts = []
    for index in range(slices):
        begin, wide = weights.rank * index, slice(each * index, each * (index + 1))
        own = slice(begin, begin + weights.rank if index + 1 < slices else None)
        bias = None if weights.up_bias is None else weights.up_bias[..., wide]
        to = None if out is None else out[..., wide]
        parts.append(add_product(past[..., wide], z[..., own], up[..., own, :], bias, scale, to))
    return torch.cat(parts, -1) if out is None else out


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
    dim, out, exact = source.shape[-1], gradient.shape[-1], weights.exact
    rows, above = source.flatten(0, -2), gradient.flatten(0, -2)
    below = torch.zeros_like(rows, memory_format=_KEPT)
    count, width = weights.down.shape[:2]
    slices = out // weights.up.shape[-1]

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(len(slots), *shape, dtype=exact, device=source.device)

    down, up, up_bias = zeros(width, dim), zeros(width, weights.up.shape[-1]), zeros(out)
    down_bias = zeros(width)
    for place, slot, span in spans(source, slots, offsets):
        if slot < 0:
            continue
        x, dy = rows[span].to(exact), above[span].to(exact)
        sums = None if weights.down_sum is None else weights.down_sum[slot]
        made = project(x, weights.down[slot].to(exact), sums)
        hidden = made.hidden if weights.down_bias is None else made.hidden + weights.down_bias[slot]
        dz = scale * (dy @ _up(weights, slot, slices).mT)
        dh = dz * slope(activation, hidden)
        dx, down[place] = made.backward(dh)
        below[span] = dx.to(below.dtype)
        down_bias[place] = dh.sum(0)
        wide = scale * (activate(activation, hidden).mT @ dy)
        up[place] = (wide * _reads(weights, slices)).view(width, slices, -1).sum(1)
        up_bias[place] = scale * dy.sum(0)
    return below.view(source.shape), FoldedBottleneck(
        by_slot(down, slots, count).to(weights.down.dtype),
        None if weights.down_sum is None else torch.zeros_like(weights.down_sum),
        None if weights.down_bias is None else by_slot(down_bias, slots, count),
        by_slot(up, slots, count).to(weights.up.dtype),
        None if weights.up_bias is None else by_slot(up_bias, slots, count),
        weights.rank,
    )


def _up(weights: FoldedBottleneck, slot: int, slices: int) -> Tensor:
    """The up projection with zeros where a slice does not read, ``[width, out]``."""
    wide = weights.up[slot].to(weights.exact).repeat(1, slices)
    return wide * _reads(weights, slices) if slices > 1 else wide


def _reads(weights: FoldedBottleneck, slices: int) -> Tensor:
    """1 where a slice reads a column of the bottleneck, else 0, ``[width, out]``."""
    _, width, each = weights.up.shape
    columns = torch.arange(width, device=weights.up.device)
    mine = (columns // weights.rank).clamp(max=slices - 1)
    outputs = torch.arange(slices, device=weights.up.device).repeat_interleave(each)
    return (mine[:, None] == outputs).to(weights.exact)
