"""How the Triton kernels of the conformer adapter are launched."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from speechadapt_kernels.conformer import kernels
from speechadapt_kernels.conformer.folded import FoldedConformer
from speechadapt_kernels.layout import check_width
from speechadapt_kernels.norm import EPSILON
from speechadapt_kernels.plan import WIDEST, tiles_for


def forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    weights: FoldedConformer,
    scale: float,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """Two launches, with the gated values in a buffer between them."""
    source, base, slots = source.contiguous(), base.contiguous(), slots.contiguous()
    batch, frames, dim = source.shape
    rows = batch * frames
    kernel, width = weights.conv.shape[1:]
    check_width(width, WIDEST)
    seen = source.new_empty(batch, kernel - 1 + frames, width)
    shared = {"DIM": dim, "WIDTH": width, "KERNEL": kernel}
    tiles = tiles_for("conformer.glu", source.device, width, rows, (dim,), source.dtype)
    kernels.glu_kernel[(triton.cdiv(frames, tiles.frames), batch)](
        source,
        seen,
        state.contiguous(),
        slots,
        weights.down.contiguous(),
        weights.down_sum,
        weights.down_bias,
        frames,
        EPSILON,
        PAST=triton.next_power_of_2(max(kernel - 1, 1)),
        **shared,
        **tiles.settings(),
    )
    out = torch.empty_like(base)
    tiles = tiles_for("conformer.conv", source.device, width, rows, (dim,), source.dtype)
    kernels.conv_kernel[(triton.cdiv(frames, tiles.frames), batch)](
        base,
        out,
        seen,
        slots,
        weights.conv,
        weights.conv_bias,
        weights.inner_weight,
        weights.inner_bias,
        weights.up,
        weights.up_bias,
        frames,
        scale,
        EPSILON,
        CHANNELS=weights.channels,
        NORM=weights.inner_weight is not None,
        **shared,
        **tiles.settings(),
    )
    return out, seen[:, frames:].clone()
