"""How the Triton kernels of the fused bottleneck are launched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from speechadapt_kernels.bottleneck import kernels
from speechadapt_kernels.bottleneck.folded import EPSILON, FoldedBottleneck
from speechadapt_kernels.layout import by_slot


@dataclass(frozen=True)
class Tiles:
    """How the work is cut: frames and columns of a tile, warps of a program, loads in flight."""

    frames: int
    dim: int
    warps: int
    stages: int


def tiles_of(dim: int, frames: int) -> Tiles:
    """Short utterances in small tiles, so that there are enough of them."""
    return Tiles(16 if frames <= 256 else 64, 128 if dim % 128 == 0 else 64, 4, 2)


def forward(
    source: Tensor,
    base: Tensor | None,
    slots: Tensor,
    weights: FoldedBottleneck,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> Tensor:
    """One launch for the whole batch."""
    source = source.contiguous()
    out = torch.empty_like(source)
    frames = longest if offsets is not None else source.shape[1]
    tiles = tiles_of(source.shape[-1], frames)
    kernels.forward_kernel[(triton.cdiv(frames, tiles.frames), len(slots))](
        source,
        source if base is None else base.contiguous(),
        out,
        slots,
        slots if offsets is None else offsets,
        weights.down,
        weights.down_bias if weights.down_sum is None else weights.down_sum,
        weights.down_bias,
        weights.up,
        weights.up_bias,
        frames,
        scale,
        EPSILON,
        DIM=source.shape[-1],
        WIDTH=weights.down.shape[1],
        ACTIVATION=activation,
        NORM=weights.down_sum is not None,
        SAME=base is None,
        PACKED=offsets is not None,
        BLOCK_FRAMES=tiles.frames,
        BLOCK_DIM=tiles.dim,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


def backward(
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
    """Gradients of the source, with what goes past the adapter if it is the base, and weights."""
    source = source.contiguous()
    count, width, dim = weights.down.shape
    frames = longest if offsets is not None else source.shape[1]
    tiles = tiles_of(dim, frames)
    grid = (triton.cdiv(frames, tiles.frames), len(slots))
    below = torch.empty_like(source)
    rows = source.numel() // dim
    z, scaled = (source.new_empty(rows, width) for _ in range(2))
    parts = [weights.down_bias.new_empty(len(slots), grid[0], width) for _ in range(2)]
    norm = weights.down_sum is not None
    shared = {
        "DIM": dim,
        "WIDTH": width,
        "PACKED": offsets is not None,
        "BLOCK_FRAMES": tiles.frames,
        "BLOCK_DIM": tiles.dim,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
    where = slots if offsets is None else offsets
    kernels.backward_kernel[grid](
        gradient,
        source,
        below,
        z,
        scaled,
        *parts,
        slots,
        where,
        weights.down,
        weights.down_bias if weights.down_sum is None else weights.down_sum,
        weights.down_bias,
        weights.up,
        frames,
        scale,
        EPSILON,
        ACTIVATION=activation,
        NORM=norm,
        SAME=same,
        **shared,
    )
    down, up = (weights.down_bias.new_empty(len(slots), width, dim) for _ in range(2))
    sums = weights.down_bias.new_empty(len(slots), dim)
    for left, right, out, with_sums in ((scaled, source, down, False), (z, gradient, up, True)):
        kernels.outer_kernel[(dim // tiles.dim, len(slots))](
            left, right, out, sums, slots, where, frames, SUMS=with_sums, **shared
        )
    bias, row_sums = (by_slot(part.sum(1), slots, count) for part in parts)
    return below, FoldedBottleneck(
        by_slot(down, slots, count).to(weights.down.dtype),
        row_sums if norm else None,
        bias,
        (scale * by_slot(up, slots, count)).to(weights.up.dtype),
        scale * by_slot(sums, slots, count),
    )
