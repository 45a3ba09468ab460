"""Triton kernels of the folded fusion: scores, then the mixture.

Two launches: with every adapter's bottleneck in registers at once they spill. The programs of the
first that read the same states run next to each other.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
import triton
import triton.language as tl

from speechadapt_kernels.tiles import PRECISION, activate, add_moments, mean_and_rstd


@triton.jit(do_not_specialize=["rows"])
def score_kernel(
    source,
    z_out,  # [rows, COUNT * WIDTH]
    score_out,  # [rows, COUNT]
    down,
    down_sum,
    down_bias,
    reading,  # H
    reading_bias,
    direct,  # β
    constant,
    rows,
    epsilon,
    DIM: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    SCORES: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """The bottleneck of one adapter, and the score that its output would have."""
    n = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside = row < rows
    width = tl.arange(0, WIDTH)
    hidden = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
    seen = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
    score = tl.zeros([BLOCK_FRAMES], tl.float32)
    if NORM:
        pivot = tl.load(source + row * DIM, mask=inside, other=0.0).to(tl.float32)
        first = tl.zeros([BLOCK_FRAMES], tl.float32)
        second = tl.zeros([BLOCK_FRAMES], tl.float32)
    for k in range(0, DIM, BLOCK_DIM):
        column = k + tl.arange(0, BLOCK_DIM)
        x = tl.load(source + row[:, None] * DIM + column, mask=inside[:, None], other=0.0)
        at = (n * WIDTH + width[:, None]) * DIM + column[None, :]
        hidden = tl.dot(x, tl.trans(tl.load(down + at)), hidden, input_precision=PRECISION)
        if SCORES:
            seen = tl.dot(x, tl.trans(tl.load(reading + at)), seen, input_precision=PRECISION)
            score += tl.sum(x.to(tl.float32) * tl.load(direct + n * DIM + column)[None, :], 1)
        if NORM:
            first, second = add_moments(x, pivot, first, second)
    if NORM:
        mean, rstd = mean_and_rstd(first, second, pivot, epsilon, DIM)
        hidden -= mean[:, None] * tl.load(down_sum + n * WIDTH + width)[None, :]
        hidden *= rstd[:, None]
    z = activate(hidden + tl.load(down_bias + n * WIDTH + width)[None, :], ACTIVATION)
    at = row[:, None] * (COUNT * WIDTH) + (n * WIDTH + width)[None, :]
    tl.store(z_out + at, z.to(z_out.dtype.element_ty), mask=inside[:, None])
    if SCORES:
        seen += tl.load(reading_bias + n * WIDTH + width)[None, :]
        score += tl.sum(z * seen, 1) + tl.load(constant + n)
        tl.store(score_out + row * COUNT + n, score, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def mix_kernel(
    base,
    out,
    z_in,  # [rows, COUNT * WIDTH]
    score_in,  # [rows, COUNT]: scores, or shares that are given
    share_out,  # [rows, COUNT]
    value,
    value_bias,
    rows,
    DIM: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,  # COUNT up to a power of two
    WIDTH: tl.constexpr,
    SCORES: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``out = base + Σ share_n (V_n z_n + ν_n)`` for some rows and columns."""
    row = tl.program_id(1).to(tl.int64) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside = (row < rows)[:, None]
    column = tl.program_id(0) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    width = tl.arange(0, WIDTH)
    every = tl.arange(0, ROOM)
    of = row[:, None] * COUNT + every[None, :]
    exists = inside & (every < COUNT)[None, :]
    if SCORES:
        # Rows outside have equal scores: no row of minus infinities, whose softmax is no number.
        scores = tl.load(score_in + of, mask=exists, other=0.0)
        scores = tl.where((every < COUNT)[None, :], scores, float("-inf"))
        shares = tl.exp(scores - tl.max(scores, 1)[:, None])
        shares /= tl.sum(shares, 1)[:, None]
    else:
        shares = tl.load(score_in + of, mask=exists, other=0.0)
    if tl.program_id(0) == 0:
        tl.store(share_out + of, shares, mask=exists)
    mixed = tl.zeros([BLOCK_FRAMES, BLOCK_DIM], tl.float32)
    for n in range(COUNT):
        share = tl.sum(tl.where((every == n)[None, :], shares, 0.0), 1)[:, None]
        at = row[:, None] * (COUNT * WIDTH) + (n * WIDTH + width)[None, :]
        z = tl.load(z_in + at, mask=inside, other=0.0)
        v = tl.load(value + (n * WIDTH + width[:, None]) * DIM + column[None, :])
        weighed = (share * z.to(tl.float32)).to(v.dtype)
        mixed = tl.dot(weighed, v, mixed, input_precision=PRECISION)
        mixed += share * tl.load(value_bias + n * DIM + column)[None, :]
    at = row[:, None] * DIM + column[None, :]
    y = tl.load(base + at, mask=inside, other=0.0).to(tl.float32) + mixed
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)
