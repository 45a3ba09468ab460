"""The algebra of the fused operator: LayerNorm folded into the down projection.

With ``A' = A diag(γ)``, ``c = A' 1`` and ``d = A β + a``, the hidden state is
``h = (A' x - μ c) / σ + d``: mean and variance of a row are found in the same pass over it as the
product. Both passes of the backward stay in the width of the bottleneck too: the two row sums of a
LayerNorm's gradient are ``dh·c`` and ``dh·(h - d)``. What c adds to the gradient of A', ``-μ dh/σ``
in every column, is in that of A' at once, ``dh/σ (x - μ)'``: rounded apart, a large mean would
drown the rest. So c itself is given none.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate, slope
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.layout import by_run, by_slot, spans
from speechadapt_kernels.norm import normalised
from speechadapt_kernels.plan import runs_apart

SMALLEST_WIDTH = 16  # of a tile of a tensor core
_KEPT = torch.contiguous_format  # gradients lie as the operator says, whatever goes in


@dataclass(frozen=True)
class FoldedBottleneck:
    """Weights of the adapters in their slots, as the fused operator reads them.

    What they give may be several outputs side by side (slices, as of a fused projection), each
    with ``rank`` columns of the bottleneck of its own.

    Attributes:
        down: ``[slots, width, dim]``, the LayerNorm's weight multiplied in; width is the bottleneck
            padded with zeros to a power of two.
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

    def of(self, slots: Tensor) -> FoldedBottleneck:
        """The weights of each utterance's slot."""
        held = (self.down, self.down_sum, self.down_bias, self.up, self.up_bias)
        mine: list[Any] = [None if tensor is None else tensor[slots] for tensor in held]
        return FoldedBottleneck(*[*mine, self.rank, self.slices])

    def apart(self) -> list[FoldedBottleneck]:
        """Each slot's weights, without the first axis. The gradient of an index would be as large
        as all of them."""
        held = (self.down, self.down_sum, self.down_bias, self.up, self.up_bias)
        count = len(self.down)
        parts: list[Any] = [[None] * count if t is None else t.unbind() for t in held]
        each = zip(*parts, strict=True)
        return [FoldedBottleneck(*[*mine, self.rank, self.slices]) for mine in each]


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
    room = padded_width(down.shape[1]) - down.shape[1]
    down = F.pad(down, (0, 0, 0, room)).to(dtype)
    if weights.norm_weight is not None:
        # Of the rounded rows: the product with a row's mean has to cancel exactly.
        down_sum = down.detach().to(exact).sum(-1)
    return FoldedBottleneck(
        down.contiguous(),
        down_sum,
        F.pad(down_bias, (0, room)),
        F.pad(weights.up.mT, (0, 0, 0, room)).to(dtype).contiguous(),
        weights.up_bias.to(exact),
        down.shape[1],
    )


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
    room = padded_width(width) - width

    def side_by_side(tensor: Tensor) -> Tensor:
        together = tensor.flatten(0, 1)
        return F.pad(together, (0,) * (2 * together.dim() - 1) + (room,))[None].contiguous()

    return FoldedBottleneck(
        side_by_side(made.down),
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
    each = weights.apart()

    def mine(rows: Tensor, past: Tensor, slot: int) -> Tensor:
        return adapted(rows, past, each[slot], activation, scale)

    return by_run(source, base, slots, offsets, mine)


def _together(source: Tensor, slots: Tensor) -> bool:
    """Whether the utterances of a batch are better served by one product than one by one."""
    if source.device.type != "cpu" or runs_apart(source):
        return False
    used = set(slots.tolist())
    return len(used) > 1 and min(used) >= 0


def adapted(
    x: Tensor, past: Tensor, weights: FoldedBottleneck, activation: str, scale: float
) -> Tensor:
    """``past`` and what adapters make of ``x``, one of all rows or each of its utterance.

    Args:
        x: What they read, ``[rows, dim]`` or ``[batch, rows, dim]``.
        past: What it is added to, ``[rows, out]`` or ``[batch, rows, out]``.
        weights: Without a first axis, or with one as long as the batch.
        activation: As the operator takes it.
        scale: As the operator takes it.
    """
    exact = weights.exact
    x = x.to(exact)
    if weights.down_sum is not None:
        x, _ = normalised(x)
    z = activate(activation, _product(x, weights.down.to(exact).mT, weights.down_bias))
    up = weights.up.to(exact)
    slices = past.shape[-1] // up.shape[-1]
    if slices == 1:
        delta = _product(z, up, weights.up_bias)
    else:
        starts = [weights.rank * index for index in range(slices)]
        mine = [slice(a, b) for a, b in itertools.pairwise([*starts, up.shape[-2]])]
        delta = torch.cat([z[..., own] @ up[..., own, :] for own in mine], -1)
        delta = delta if weights.up_bias is None else delta + weights.up_bias[..., None, :]
    return torch.add(past, delta, alpha=scale).to(past.dtype)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ matrix + bias``, with one matrix for all or one for each utterance."""
    if matrix.dim() == 2:
        return F.linear(x, matrix.mT, bias)
    return x @ matrix if bias is None else torch.baddbmm(bias[:, None], x, matrix)


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
