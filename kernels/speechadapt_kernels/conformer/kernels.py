"""Triton kernels of the conformer adapter: gated projection, then the rest.

The gated values are as narrow as the bottleneck; between the launches they lie behind those of the
chunks before, where the convolution finds all it sees side by side.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
import triton
import triton.language as tl

from speechadapt_kernels.tiles import PRECISION, add_moments, mean_and_rstd


@triton.jit(do_not_specialize=["frames"])
def glu_kernel(
    source,
    seen,  # out: [batch, KERNEL - 1 + frames, WIDTH]
    state,  # [batch, KERNEL - 1, WIDTH]
    slots,
    down,  # [slots, 2 * WIDTH, DIM]: values, then gates
    down_sum,
    down_bias,
    frames,
    epsilon,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    KERNEL: tl.constexpr,
    PAST: tl.constexpr,  # KERNEL - 1 up to a power of two
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``glu(down(norm(source)))`` behind the state; zeros where there is no adapter."""
    utterance = tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + utterance).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    begin = utterance * (frames + KERNEL - 1)
    if tl.program_id(0) == 0:
        past = tl.arange(0, PAST)[:, None]
        mask = past < KERNEL - 1
        at = (utterance * (KERNEL - 1) + past) * WIDTH + columns[None, :]
        before = tl.load(state + at, mask=mask, other=0.0)
        before = tl.where(slot >= 0, before, 0.0)
        tl.store(seen + (begin + past) * WIDTH + columns[None, :], before, mask=mask)
    frame = tl.program_id(0) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside, row = frame < frames, utterance * frames + frame
    out = seen + (begin + KERNEL - 1 + frame)[:, None] * WIDTH + columns[None, :]
    if slot < 0:
        tl.store(out, tl.zeros([BLOCK_FRAMES, WIDTH], seen.dtype.element_ty), mask=inside[:, None])
    else:
        own = slot * 2 * WIDTH + columns
        values = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
        gates = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
        pivot = tl.load(source + row * DIM, mask=inside, other=0.0).to(tl.float32)
        first = tl.zeros([BLOCK_FRAMES], tl.float32)
        second = tl.zeros([BLOCK_FRAMES], tl.float32)
        for k in range(0, DIM, BLOCK_DIM):
            column = (k + tl.arange(0, BLOCK_DIM))[None, :]
            x = tl.load(source + row[:, None] * DIM + column, mask=inside[:, None], other=0.0)
            at = down + own[:, None] * DIM + column
            values = tl.dot(x, tl.trans(tl.load(at)), values, input_precision=PRECISION)
            at += WIDTH * DIM
            gates = tl.dot(x, tl.trans(tl.load(at)), gates, input_precision=PRECISION)
            first, second = add_moments(x, pivot, first, second)
        mean, rstd = mean_and_rstd(first, second, pivot, epsilon, DIM)
        values = rstd[:, None] * (values - mean[:, None] * tl.load(down_sum + own)[None, :])
        values += tl.load(down_bias + own)[None, :]
        own += WIDTH
        gates = rstd[:, None] * (gates - mean[:, None] * tl.load(down_sum + own)[None, :])
        gates += tl.load(down_bias + own)[None, :]
        made = values * tl.sigmoid(gates)
        tl.store(out, made.to(seen.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["frames"])
def conv_kernel(
    base,
    out,
    seen,
    slots,
    conv,
    conv_bias,
    inner_weight,
    inner_bias,
    up,
    up_bias,
    frames,
    scale,
    epsilon,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """``out = base + scale * up(silu(norm(conv(seen))))``."""
    utterance = tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + utterance).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    frame = tl.program_id(0) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    inside = (frame < frames)[:, None]
    row = (utterance * frames + frame)[:, None]
    if slot < 0:
        for k in range(0, DIM, BLOCK_DIM):
            at = row * DIM + (k + tl.arange(0, BLOCK_DIM))[None, :]
            tl.store(out + at, tl.load(base + at, mask=inside), mask=inside)
    else:
        own = slot * WIDTH + columns
        hidden = tl.zeros([BLOCK_FRAMES, WIDTH], tl.float32)
        begin = utterance * (frames + KERNEL - 1)
        for k in range(KERNEL):
            at = (begin + frame + k)[:, None] * WIDTH + columns[None, :]
            window = tl.load(seen + at, mask=inside, other=0.0).to(tl.float32)
            hidden += window * tl.load(conv + (slot * KERNEL + k) * WIDTH + columns)[None, :]
        hidden += tl.load(conv_bias + own)[None, :]
        if NORM:
            real = (columns < CHANNELS)[None, :]
            mean = tl.sum(tl.where(real, hidden, 0.0), 1) / CHANNELS
            hidden = tl.where(real, hidden - mean[:, None], 0.0)
            variance = tl.sum(hidden * hidden, 1) / CHANNELS
            hidden *= tl.rsqrt(variance + epsilon)[:, None]
            hidden = hidden * tl.load(inner_weight + own)[None, :]
            hidden += tl.load(inner_bias + own)[None, :]
        z = (hidden * tl.sigmoid(hidden)).to(up.dtype.element_ty)
        for k in range(0, DIM, BLOCK_DIM):
            column = k + tl.arange(0, BLOCK_DIM)
            b = tl.load(up + own[:, None] * DIM + column[None, :])
            delta = tl.dot(z, b, input_precision=PRECISION)
            delta += tl.load(up_bias + slot * DIM + column)[None, :]
            at = row * DIM + column[None, :]
            y = tl.load(base + at, mask=inside, other=0.0).to(tl.float32) + scale * delta
            tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)
