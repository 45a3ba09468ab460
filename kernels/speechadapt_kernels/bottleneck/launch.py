"""How the Triton kernels of the fused bottleneck are launched."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from speechadapt_kernels.bottleneck import kernels
from speechadapt_kernels.bottleneck.folded import FoldedBottleneck
from speechadapt_kernels.layout import by_slot, check_width, widest
from speechadapt_kernels.norm import EPSILON
from speechadapt_kernels.plan import Tiles, tiles_for


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
    source, slots = source.contiguous(), slots.contiguous()
    origin = source if base is None else base.contiguous()
    out = torch.empty_like(origin)
    grid, settings, tiles = _settings("forward", source, slots, weights, offsets, longest)
    kernels.forward_kernel[(*grid, tiles.splits)](
        source,
        origin,
        out,
        slots,
        slots if offsets is None else offsets.contiguous(),
        weights.down.contiguous(),
        weights.down_sum,
        weights.down_bias,
        weights.up,
        weights.up_bias,
        source.shape[1] if offsets is None else longest,
        scale,
        EPSILON,
        OUT=out.shape[-1],
        SLICES=out.shape[-1] // weights.up.shape[-1],
        ACTIVATION=activation,
        NORM=weights.down_sum is not None,
        BIAS=weights.down_bias is not None,
        SAME=base is None,
        SPLITS=tiles.splits,
        **settings,
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
    source, slots = source.contiguous(), slots.contiguous()
    (count, width, dim), batch = weights.down.shape, len(slots)
    slices = gradient.shape[-1] // weights.up.shape[-1]
    grid, settings, _ = _settings("backward", source, slots, weights, offsets, longest)
    where = slots if offsets is None else offsets.contiguous()
    frames = source.shape[1] if offsets is None else longest
    below = torch.empty_like(source)
    z, scaled = (source.new_empty(source.numel() // dim, width) for _ in range(2))

    def exact(*shape: int) -> Tensor:
        return torch.empty(batch, *shape, dtype=torch.float32, device=source.device)

    means = torch.empty(len(z), dtype=torch.float32, device=source.device)
    bias_parts = exact(grid[0], width)
    kernels.backward_kernel[grid](
        gradient,
        source,
        below,
        z,
        scaled,
        means,
        bias_parts,
        slots,
        where,
        weights.down.contiguous(),
        weights.down_sum,
        weights.down_bias,
        weights.up,
        frames,
        scale,
        EPSILON,
        OUT=gradient.shape[-1],
        SLICES=slices,
        ACTIVATION=activation,
        NORM=weights.down_sum is not None,
        BIAS=weights.down_bias is not None,
        SAME=same,
        **settings,
    )
    down, up, sums = exact(width, dim), exact(*weights.up.shape[1:]), exact(gradient.shape[-1])
    _, settings, _ = _settings("outer", source, slots, weights, offsets, longest)
    products = ((scaled, source, down, 1, True), (z, gradient, up, slices, False))
    for left, right, product, sides, read in products:
        kernels.outer_kernel[(right.shape[-1] // settings["BLOCK_DIM"], batch)](
            left,
            right,
            means,
            product,
            sums,
            slots,
            where,
            frames,
            SLICES=sides,
            CENTRED=read and weights.down_sum is not None,
            SUMS=not read and weights.up_bias is not None,
            **settings | {"DIM": right.shape[-1]},
        )

    def summed_up(parts: Tensor, like: Tensor | None) -> Tensor | None:
        return None if like is None else by_slot(parts, slots, count)

    up_bias = summed_up(sums, weights.up_bias)
    return below, FoldedBottleneck(
        by_slot(down, slots, count).to(weights.down.dtype),
        None if weights.down_sum is None else torch.zeros_like(weights.down_sum),
        summed_up(bias_parts.sum(1), weights.down_bias),
        (scale * by_slot(up, slots, count)).to(weights.up.dtype),
        None if up_bias is None else scale * up_bias,
        weights.rank,
    )


def _settings(
    kernel: str,
    source: Tensor,
    slots: Tensor,
    weights: FoldedBottleneck,
    offsets: Tensor | None,
    longest: int,
) -> tuple[tuple[int, int], dict[str, Any], Tiles]:
    """The grid, what every kernel is compiled with, and how it is cut."""
    frames = source.shape[1] if offsets is None else longest
    dim, each = source.shape[-1], weights.up.shape[-1]
    width = weights.down.shape[1]
    check_width(width, widest(source.dtype))
    tiles = tiles_for(
        f"bottleneck.{kernel}",
        source.device,
        width,
        source.numel() // dim,
        (dim, each),
        source.dtype,
    )
    settings = {
        "DIM": dim,
        "WIDTH": width,
        "RANK": weights.rank,
        "PACKED": offsets is not None,
        **tiles.settings(),
    }
    return (triton.cdiv(frames, tiles.frames), len(slots)), settings, tiles
