"""Triton kernel of the bottleneck in few bits; the algebra is that of ``folded``.

Built as the kernel on floats is. Codes become floats in registers; scales multiply what is as wide
as the bottleneck, not the matrices.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
import triton
import triton.language as tl

from speechadapt_kernels.tiles import (
    PRECISION,
    activate,
    add_moments,
    copy_rows,
    matrix,
    mean_and_rstd,
    states,
    tile_of,
)


@triton.jit
def _codes(
    codes,
    slot,
    k,
    like,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BITS: tl.constexpr,
):
    """``BLOCK_DIM`` columns from ``k`` of a slot's codes, in the type of ``like``."""
    if BITS == 8:
        values = tl.load(codes + matrix(slot, k, DIM, WIDTH, BLOCK_DIM))
    else:
        column = k + tl.arange(0, BLOCK_DIM)[None, :]
        row = slot * WIDTH + tl.arange(0, WIDTH)[:, None]
        byte = tl.load(codes + row * (DIM // 8) + column // 8).to(tl.int32)
        values = ((byte >> (column % 8)) & 1) * 2 - 1
    return values.to(like.dtype)


@triton.jit(do_not_specialize=["frames"])
def forward_kernel(
    source,
    base,
    out,
    slots,
    offsets,
    down,
    down_scale,
    down_offset,
    down_sum,
    down_bias,
    norm_weight,
    up,
    up_scale,
    up_offset,
    up_bias,
    frames,
    scale,
    epsilon,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    RAISED: tl.constexpr,  # scales of the up projection are small for half precision
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    SAME: tl.constexpr,  # base is source
    PACKED: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``out = base + scale * up(act(down(norm(source))))``; a slot of -1 copies the base."""
    _, slot, left, rows, inside = tile_of(slots, offsets, frames, PACKED, BLOCK_FRAMES)
    if left:
        if slot < 0:
            copy_rows(base, out, rows, inside, 0, DIM, DIM, BLOCK_DIM)
        else:
            width = slot * WIDTH + tl.arange(0, WIDTH)
            hidden = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
            total = tl.zeros([BLOCK_FRAMES], tl.float32)
            if NORM:
                pivot = tl.load(source + rows * DIM, mask=inside, other=0.0).to(tl.float32)
                first = tl.zeros([BLOCK_FRAMES], tl.float32)
                second = tl.zeros([BLOCK_FRAMES], tl.float32)
            for k in range(0, DIM, BLOCK_DIM):
                at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
                x = tl.load(source + at, mask=mask, other=0.0)
                if NORM:
                    first, second = add_moments(x, pivot, first, second)
                    gamma = tl.load(norm_weight + slot * DIM + k + tl.arange(0, BLOCK_DIM))
                    x = ((x.to(tl.float32) - pivot[:, None]) * gamma[None, :]).to(x.dtype)
                a = _codes(down, slot, k, x, DIM, WIDTH, BLOCK_DIM, BITS)
                hidden = tl.dot(x, tl.trans(a), hidden, input_precision=PRECISION)
                if BITS == 1:
                    total += tl.sum(x.to(tl.float32), 1)
            hidden *= tl.load(down_scale + width)[None, :]
            if BITS == 1:
                hidden += total[:, None] * tl.load(down_offset + width)[None, :]
            if NORM:
                mean, rstd = mean_and_rstd(first, second, pivot, epsilon, DIM)
                hidden -= (mean - pivot)[:, None] * tl.load(down_sum + width)[None, :]
                hidden *= rstd[:, None]
            z = activate(hidden + tl.load(down_bias + width)[None, :], ACTIVATION)
            if BITS == 1:
                total = tl.sum(z * tl.load(up_offset + width)[None, :], 1)
            z *= tl.load(up_scale + width)[None, :] * RAISED
            for k in range(0, DIM, BLOCK_DIM):
                at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
                x = tl.load(source + at, mask=mask, other=0.0)
                b = _codes(up, slot, k, x, DIM, WIDTH, BLOCK_DIM, BITS)
                delta = tl.dot(z.to(x.dtype), b, input_precision=PRECISION) / RAISED
                if BITS == 1:
                    delta += total[:, None]
                delta += tl.load(up_bias + slot * DIM + k + tl.arange(0, BLOCK_DIM))[None, :]
                if not SAME:
                    x = tl.load(base + at, mask=mask, other=0.0)
                y = x.to(tl.float32) + scale * delta
                tl.store(out + at, y.to(out.dtype.element_ty), mask=mask)
