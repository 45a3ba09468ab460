"""How the Triton kernel of the bottleneck in few bits is launched."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from speechadapt_kernels.layout import check_width
from speechadapt_kernels.lowbit import kernels
from speechadapt_kernels.lowbit.folded import FoldedLowBit
from speechadapt_kernels.norm import EPSILON
from speechadapt_kernels.plan import WIDEST, tiles_for


def forward(
    source: Tensor,
    base: Tensor | None,
    slots: Tensor,
    weights: FoldedLowBit,
    activation: str,
    scale: float,
    offsets: Tensor | None,
    longest: int,
) -> Tensor:
    """One launch for the whole batch."""
    source, slots = source.contiguous(), slots.contiguous()
    origin = source if base is None else base.contiguous()
    out = torch.empty_like(origin)
    frames = source.shape[1] if offsets is None else longest
    width, dim = weights.down.codes.shape[1], source.shape[-1]
    check_width(width, WIDEST)
    bits = 1 if weights.down.codes.dtype == torch.uint8 else 8
    rows = source.numel() // dim
    tiles = tiles_for("lowbit.forward", source.device, width, rows, (dim,), source.dtype)
    kernels.forward_kernel[(triton.cdiv(frames, tiles.frames), len(slots))](
        source,
        origin,
        out,
        slots,
        slots if offsets is None else offsets.contiguous(),
        weights.down.codes,
        weights.down.scale,
        weights.down.offset,
        weights.down_sum,
        weights.down_bias,
        weights.norm_weight,
        weights.up.codes,
        weights.up.scale,
        weights.up.offset,
        weights.up_bias,
        frames,
        scale,
        EPSILON,
        DIM=dim,
        WIDTH=width,
        BITS=bits,
        RAISED=128 if bits == 8 else 1,
        ACTIVATION=activation,
        NORM=weights.norm_weight is not None,
        SAME=base is None,
        PACKED=offsets is not None,
        **tiles.settings(),
    )
    return out
