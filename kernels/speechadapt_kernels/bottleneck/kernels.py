"""Triton kernels of the fused bottleneck; the algebra is that of ``folded``.

A program has some frames of one utterance, so one adapter. It reads the states twice, the second
time from the cache, and keeps all that is as wide as the bottleneck in registers.

The base may have another width than the source, and may be several outputs side by side (slices,
as of a fused projection): then each slice has rows of the bottleneck of its own.
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
    slope,
    span,
    states,
    tile_of,
)


@triton.jit
def _reads(columns, each, SLICES: tl.constexpr, RANK: tl.constexpr):
    """Which columns of the bottleneck a slice reads; what fills it up goes with the last."""
    return tl.minimum(columns // RANK, SLICES - 1) == each


@triton.jit
def _up(
    up,
    slot,
    k,
    OUT: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``BLOCK_DIM`` columns from ``k`` of the up projection, ``[WIDTH, BLOCK_DIM]``.

    Zero in the rows that other slices read; they are not stored: it is ``[WIDTH, OUT / SLICES]``.
    """
    if SLICES == 1:
        b = tl.load(up + matrix(slot, k, OUT, WIDTH, BLOCK_DIM))
    else:
        each = k // (OUT // SLICES)
        mine = _reads(tl.arange(0, WIDTH), each, SLICES, RANK)
        at = matrix(slot, k - each * (OUT // SLICES), OUT // SLICES, WIDTH, BLOCK_DIM)
        b = tl.load(up + at, mask=mine[:, None], other=0.0)
    return b


@triton.jit(do_not_specialize=["frames"])
def forward_kernel(
    source,
    base,
    out,
    slots,
    offsets,
    down,
    down_sum,
    down_bias,
    up,
    up_bias,
    frames,
    scale,
    epsilon,
    DIM: tl.constexpr,  # of the source
    OUT: tl.constexpr,  # of the base
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
    RANK: tl.constexpr,  # columns of the bottleneck for each slice
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    SAME: tl.constexpr,  # base is source
    PACKED: tl.constexpr,
    SPLITS: tl.constexpr,  # programs that share the columns of a tile
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``out = base + scale * up(act(down(norm(source))))``; a slot of -1 copies the base."""
    _, slot, left, rows, inside = tile_of(slots, offsets, frames, PACKED, BLOCK_FRAMES)
    begin = 0 if SPLITS == 1 else tl.program_id(2) * (OUT // SPLITS)
    end = begin + OUT // SPLITS
    # A packed utterance may be shorter than the longest: then there is nothing to do here.
    if left:
        if slot < 0:
            copy_rows(base, out, rows, inside, begin, end, OUT, BLOCK_DIM)
        else:
            width = slot * WIDTH + tl.arange(0, WIDTH)
            hidden = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
            if NORM:
                pivot = tl.load(source + rows * DIM, mask=inside, other=0.0).to(tl.float32)
                first = tl.zeros([BLOCK_FRAMES], tl.float32)
                second = tl.zeros([BLOCK_FRAMES], tl.float32)
            for k in range(0, DIM, BLOCK_DIM):
                at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
                x = tl.load(source + at, mask=mask, other=0.0)
                a = tl.load(down + matrix(slot, k, DIM, WIDTH, BLOCK_DIM))
                hidden = tl.dot(x, tl.trans(a), hidden, input_precision=PRECISION)
                if NORM:
                    first, second = add_moments(x, pivot, first, second)
            if NORM:
                mean, rstd = mean_and_rstd(first, second, pivot, epsilon, DIM)
                hidden -= mean[:, None] * tl.load(down_sum + width)[None, :]
                hidden *= rstd[:, None]
            if BIAS:
                hidden += tl.load(down_bias + width)[None, :]
            z = activate(hidden, ACTIVATION).to(up.dtype.element_ty)
            for k in range(begin, end, BLOCK_DIM):
                at, mask = states(rows, k, inside, OUT, BLOCK_DIM)
                b = _up(up, slot, k, OUT, WIDTH, SLICES, RANK, BLOCK_DIM)
                delta = tl.dot(z, b, input_precision=PRECISION)
                if BIAS:
                    delta += tl.load(up_bias + slot * OUT + k + tl.arange(0, BLOCK_DIM))[None, :]
                if SAME:
                    x = tl.load(source + at, mask=mask, other=0.0)
                else:
                    x = tl.load(base + at, mask=mask, other=0.0)
                y = x.to(tl.float32) + scale * delta
                tl.store(out + at, y.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["frames"])
def backward_kernel(
    gradient,
    source,
    below,  # out: gradient of the source
    z_out,  # out: [rows, WIDTH], what the up projection read
    scaled_out,  # out: [rows, WIDTH], gradient of the hidden state over σ
    mean_out,  # out: [rows], of the source
    bias_out,  # out: [batch, tiles, WIDTH], of the down projection's bias
    slots,
    offsets,
    down,
    down_sum,
    down_bias,
    up,
    frames,
    scale,
    epsilon,
    DIM: tl.constexpr,
    OUT: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,
    RANK: tl.constexpr,  # columns of the bottleneck for each slice
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    SAME: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Gradients of the states, and what those of the weights are products of."""
    utterance, slot, left, rows, inside = tile_of(slots, offsets, frames, PACKED, BLOCK_FRAMES)
    columns = tl.arange(0, WIDTH)
    part = (utterance * tl.num_programs(0) + tl.program_id(0)) * WIDTH + columns
    if (slot < 0) | (left == 0):
        if BIAS:
            tl.store(bias_out + part, tl.zeros([WIDTH], tl.float32))
        for k in range(0, DIM, BLOCK_DIM):
            at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
            if SAME:
                tl.store(below + at, tl.load(gradient + at, mask=mask), mask=mask)
            else:
                tl.store(below + at, tl.zeros([BLOCK_FRAMES, BLOCK_DIM], tl.float32), mask=mask)
    else:
        width = slot * WIDTH + columns
        product = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
        dz = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
        if NORM:
            pivot = tl.load(source + rows * DIM, mask=inside, other=0.0).to(tl.float32)
            first = tl.zeros([BLOCK_FRAMES], tl.float32)
            second = tl.zeros([BLOCK_FRAMES], tl.float32)
        for k in range(0, DIM, BLOCK_DIM):
            at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
            x = tl.load(source + at, mask=mask, other=0.0)
            a = tl.load(down + matrix(slot, k, DIM, WIDTH, BLOCK_DIM))
            product = tl.dot(x, tl.trans(a), product, input_precision=PRECISION)
            if NORM:
                first, second = add_moments(x, pivot, first, second)
        for k in range(0, OUT, BLOCK_DIM):
            at, mask = states(rows, k, inside, OUT, BLOCK_DIM)
            dy = tl.load(gradient + at, mask=mask, other=0.0)
            b = _up(up, slot, k, OUT, WIDTH, SLICES, RANK, BLOCK_DIM)
            dz = tl.dot(dy.to(b.dtype), tl.trans(b), dz, input_precision=PRECISION)
        if NORM:
            mean, rstd = mean_and_rstd(first, second, pivot, epsilon, DIM)
            sums = tl.load(down_sum + width)[None, :]
            centred = rstd[:, None] * (product - mean[:, None] * sums)
        else:
            centred = product
        hidden = centred
        if BIAS:
            hidden = centred + tl.load(down_bias + width)[None, :]
        z = activate(hidden, ACTIVATION)
        dh = scale * dz * slope(hidden, ACTIVATION)
        if BIAS:
            tl.store(bias_out + part, tl.sum(dh, 0))  # rows outside have no gradient
        scaled = dh
        if NORM:
            scaled = dh * rstd[:, None]
            tl.store(mean_out + rows, mean, mask=inside)
            by_mean = tl.sum(scaled * sums, 1) / DIM
            by_norm = tl.sum(scaled * centred, 1) / DIM * rstd
        narrow = rows[:, None] * WIDTH + columns[None, :]
        kind = z_out.dtype.element_ty
        tl.store(z_out + narrow, z.to(kind), mask=inside[:, None])
        tl.store(scaled_out + narrow, scaled.to(kind), mask=inside[:, None])
        for k in range(0, DIM, BLOCK_DIM):
            at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
            a = tl.load(down + matrix(slot, k, DIM, WIDTH, BLOCK_DIM))
            dx = tl.dot(scaled.to(a.dtype), a, input_precision=PRECISION)
            if NORM:
                x = tl.load(source + at, mask=mask, other=0.0).to(tl.float32)
                dx -= by_mean[:, None] + (x - mean[:, None]) * by_norm[:, None]
            if SAME:
                dx += tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
            tl.store(below + at, dx.to(below.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["frames"])
def outer_kernel(
    left,  # [rows, WIDTH]
    right,  # [rows, DIM]
    means,  # [rows], that right is centred by
    out,  # [batch, WIDTH, DIM/SLICES]: left' right of each utterance
    sum_out,  # [batch, DIM]: sum of right over each utterance
    slots,
    offsets,
    frames,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICES: tl.constexpr,  # of right
    RANK: tl.constexpr,
    CENTRED: tl.constexpr,
    SUMS: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Gradients of a matrix, of each utterance its own, in a fixed order: no atomic addition."""
    utterance = tl.program_id(1).to(tl.int64)
    start, count = span(offsets, utterance, frames, PACKED)
    if tl.load(slots + utterance) < 0:
        count = count * 0
    k = tl.program_id(0) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    columns = tl.arange(0, WIDTH)
    product = tl.zeros([WIDTH, BLOCK_DIM], tl.float32)
    sums = tl.zeros([BLOCK_DIM], tl.float32)
    for t in range(0, count, BLOCK_FRAMES):
        frame = t + tl.arange(0, BLOCK_FRAMES)
        rows, mask = (start + frame)[:, None], (frame < count)[:, None]
        a = tl.load(left + rows * WIDTH + columns[None, :], mask=mask, other=0.0)
        b = tl.load(right + rows * DIM + k[None, :], mask=mask, other=0.0)
        if CENTRED:  # here, where nothing is rounded yet: a large mean would drown the rest
            mean = tl.load(means + rows, mask=mask, other=0.0)
            b = (b.to(tl.float32) - mean).to(b.dtype)
        product = tl.dot(tl.trans(a), b.to(a.dtype), product, input_precision=PRECISION)
        if SUMS:
            sums += tl.sum(b.to(tl.float32), 0)
    each = tl.program_id(0) * BLOCK_DIM // (DIM // SLICES)
    mine = _reads(columns, each, SLICES, RANK)
    at = (utterance * WIDTH + columns[:, None]) * (DIM // SLICES) + k[None, :] % (DIM // SLICES)
    tl.store(out + at, product, mask=mine[:, None])
    if SUMS:
        tl.store(sum_out + utterance * DIM + k, sums)
