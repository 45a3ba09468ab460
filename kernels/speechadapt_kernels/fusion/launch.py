"""How the Triton kernels of the folded fusion are launched."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from speechadapt_kernels.fusion import kernels
from speechadapt_kernels.fusion.folded import FoldedFusion
from speechadapt_kernels.layout import check_width
from speechadapt_kernels.norm import EPSILON
from speechadapt_kernels.plan import WIDEST, tiles_for


def forward(
    source: Tensor,
    base: Tensor,
    weights: FoldedFusion,
    activation: str,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Two launches, with the bottlenecks in a buffer between them."""
    source, base = source.contiguous(), base.contiguous()
    count, width, dim = weights.down.shape
    check_width(width, WIDEST)
    rows = source.numel() // dim
    z = source.new_empty(rows, count * width)
    made = torch.empty(*source.shape[:-1], count, dtype=torch.float32, device=source.device)
    scores = torch.empty_like(made) if shares is None else shares.float().contiguous()
    attention = weights.scores
    shared = {
        "DIM": dim,
        "COUNT": count,
        "WIDTH": width,
        "SCORES": attention is not None,
    }
    tiles = tiles_for("fusion.score", source.device, width, rows, (dim,), source.dtype)
    kernels.score_kernel[(count, triton.cdiv(rows, tiles.frames))](
        source,
        z,
        scores,
        weights.down,
        weights.down_sum,
        weights.down_bias,
        None if attention is None else attention.down,
        None if attention is None else attention.bias,
        None if attention is None else attention.direct,
        None if attention is None else attention.constant,
        rows,
        EPSILON,
        ACTIVATION=activation,
        NORM=weights.down_sum is not None,
        **shared,
        **tiles.settings(),
    )
    out = torch.empty_like(base)
    tiles = tiles_for("fusion.mix", source.device, width, rows, (dim,), source.dtype)
    kernels.mix_kernel[(dim // tiles.dim, triton.cdiv(rows, tiles.frames))](
        base,
        out,
        z,
        scores,
        made,
        weights.value,
        weights.value_bias,
        rows,
        ROOM=triton.next_power_of_2(count),
        **shared,
        **tiles.settings(),
    )
    return out, made
