"""Pieces of Triton kernels that more than one operator uses."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-any-return"
import triton
import triton.language as tl

# Products of float32 states: three products of tensor cores, right to 1e-6. Plain float32 has no
# tensor cores, and its operands spill. Half types are not touched by it.
PRECISION: tl.constexpr = tl.constexpr("tf32x3")


@triton.jit
def activate(x, NAME: tl.constexpr):
    """An activation by its name, in float32."""
    if NAME == "identity":
        y = x
    elif NAME == "relu":
        y = tl.maximum(x, 0.0)
    elif NAME == "silu":
        y = x * tl.sigmoid(x)
    else:
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    return y


@triton.jit
def slope(x, NAME: tl.constexpr):
    """Its derivative."""
    if NAME == "identity":
        y = tl.full(x.shape, 1.0, tl.float32)
    elif NAME == "relu":
        y = tl.where(x > 0.0, 1.0, 0.0)
    elif NAME == "silu":
        gate = tl.sigmoid(x)
        y = gate * (1.0 + x * (1.0 - gate))
    else:
        density = tl.exp(-0.5 * x * x) * 0.3989422804014327
        y = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * density
    return y


@triton.jit
def span(offsets, utterance, frames, PACKED: tl.constexpr):
    """First row and number of rows of an utterance; int64, for large batches."""
    if PACKED:
        start = tl.load(offsets + utterance).to(tl.int64)
        count = tl.load(offsets + utterance + 1).to(tl.int64) - start
    else:
        start = utterance * frames
        count = frames.to(tl.int64)
    return start, count


@triton.jit
def add_moments(x, pivot, first, second):
    """Row sums of ``x`` and of its square, about ``pivot``: a large mean would cancel in them."""
    moved = x.to(tl.float32) - pivot[:, None]
    return first + tl.sum(moved, 1), second + tl.sum(moved * moved, 1)


@triton.jit
def mean_and_rstd(first, second, pivot, epsilon, DIM: tl.constexpr):
    """Of a LayerNorm, from what :func:`add_moments` summed over ``DIM`` columns."""
    mean = first / DIM
    return mean + pivot, tl.rsqrt(second / DIM - mean * mean + epsilon)


@triton.jit
def states(rows, k, inside, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Addresses of ``BLOCK_DIM`` columns from ``k`` of some rows."""
    return rows[:, None] * DIM + (k + tl.arange(0, BLOCK_DIM))[None, :], inside[:, None]


@triton.jit
def matrix(slot, k, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Addresses of ``BLOCK_DIM`` columns from ``k`` of a slot's matrix ``[WIDTH, DIM]``."""
    width = tl.arange(0, WIDTH)[:, None]
    return (slot * WIDTH + width) * DIM + (k + tl.arange(0, BLOCK_DIM))[None, :]


@triton.jit
def tile_of(slots, offsets, frames, PACKED: tl.constexpr, BLOCK_FRAMES: tl.constexpr):
    """What a program works on: utterance, its slot, whether any frame is left, rows, which are its.

    The grid is tiles of the longest utterance by utterances.
    """
    utterance = tl.program_id(1).to(tl.int64)
    start, count = span(offsets, utterance, frames, PACKED)
    first = tl.program_id(0) * BLOCK_FRAMES
    frame = first + tl.arange(0, BLOCK_FRAMES)
    slot = tl.load(slots + utterance).to(tl.int64)
    return utterance, slot, first < count, start + frame, frame < count


@triton.jit
def copy_rows(base, out, rows, inside, begin, end, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Columns from ``begin`` to ``end``, bit for bit, for an utterance without an adapter."""
    for k in range(begin, end, BLOCK_DIM):
        at, mask = states(rows, k, inside, DIM, BLOCK_DIM)
        tl.store(out + at, tl.load(base + at, mask=mask), mask=mask)
