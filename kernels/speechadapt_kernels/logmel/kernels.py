"""Triton kernels of log-mel features: the spectrum as products with cosines and sines.

The power of a window does not change when it is moved, so its middle may be sample 0. Then samples
at the same distance before and after it have the same cosine and opposite sines: their sum goes
with the cosines and their difference with the sines, which halves both products. A program has some
frames of one utterance and makes all their frequencies, block by block, each at once added to the
mel bins: no spectrum is ever stored.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
import triton
import triton.language as tl

from speechadapt_kernels.tiles import PRECISION


@triton.jit
def _mirrored(at, samples):
    """Where a sample is read that may lie before or behind the wave, which is mirrored there."""
    at = tl.abs(at)
    return tl.where(at < samples, at, 2 * (samples - 1) - at)


@triton.jit(do_not_specialize=["samples", "frames"])
def spectrum_kernel(
    waves,  # [batch, samples]
    cosines,  # [DISTANCES, FREQUENCIES], with the window
    sines,  # the same
    filters,  # [BINS, FREQUENCIES], padded as they are
    lengths,  # [batch]
    out,  # [batch, BINS, frames]: log10 of the mel bins' power
    loudest_out,  # [batch, tiles]: the largest of each program
    samples,
    frames,
    floor,
    HOP: tl.constexpr,
    DISTANCES: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_BINS: tl.constexpr,
    BLOCK_DISTANCES: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,  # frequencies at once
):
    """Log-mel energies and the loudest of them; beyond an utterance nothing is written."""
    utterance = tl.program_id(1).to(tl.int64)
    count = tl.minimum(tl.load(lengths + utterance).to(tl.int32), frames)
    frame = tl.program_id(0) * BLOCK_FRAMES + tl.arange(0, BLOCK_FRAMES)
    heard = (frame < count) & (frame < samples // HOP)
    bins = tl.arange(0, BLOCK_BINS)
    mel = tl.zeros([BLOCK_FRAMES, BLOCK_BINS], tl.float32)
    if tl.program_id(0) * BLOCK_FRAMES < tl.minimum(count, samples // HOP):
        wave = waves + utterance * samples
        middle = (frame * HOP)[:, None]
        for f in range(0, FREQUENCIES, BLOCK_DIM):
            frequency = f + tl.arange(0, BLOCK_DIM)
            real = tl.zeros([BLOCK_FRAMES, BLOCK_DIM], tl.float32)
            imaginary = tl.zeros([BLOCK_FRAMES, BLOCK_DIM], tl.float32)
            for d in range(0, DISTANCES, BLOCK_DISTANCES):
                distance = d + tl.arange(0, BLOCK_DISTANCES)
                after = _mirrored(middle + distance[None, :], samples)
                before = _mirrored(middle - distance[None, :], samples)
                x = tl.load(wave + after, mask=heard[:, None], other=0.0)
                y = tl.load(wave + before, mask=heard[:, None], other=0.0)
                at = distance[:, None] * FREQUENCIES + frequency[None, :]
                c, s = tl.load(cosines + at), tl.load(sines + at)
                real = tl.dot(x + y, c, real, input_precision=PRECISION)
                imaginary = tl.dot(x - y, s, imaginary, input_precision=PRECISION)
            power = real * real + imaginary * imaginary
            at = bins[None, :] * FREQUENCIES + frequency[:, None]
            weights = tl.load(filters + at, mask=(bins < BINS)[None, :], other=0.0)
            mel = tl.dot(power, weights, mel, input_precision=PRECISION)
    energy = tl.log(tl.maximum(mel, 1e-10)) * 0.4342944819032518
    energy = tl.where(heard[:, None], energy, floor)
    at = (utterance * BINS + bins[None, :]) * frames + frame[:, None]
    tl.store(out + at, energy, mask=(frame < count)[:, None] & (bins < BINS)[None, :])
    loudest = tl.max(tl.max(tl.where((bins < BINS)[None, :], energy, floor), 1), 0)
    tl.store(loudest_out + utterance * tl.num_programs(0) + tl.program_id(0), loudest)


@triton.jit(do_not_specialize=["frames"])
def scale_kernel(
    values,  # in and out: [batch, BINS, frames]
    loudest_in,  # [batch, TILES]
    lengths,
    frames,
    span,
    TILES: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Raise what is too far below the loudest, scale, and write 0 beyond each utterance."""
    utterance, row = tl.program_id(2).to(tl.int64), tl.program_id(1)
    tile = tl.arange(0, BLOCK_TILES)
    parts = tl.load(loudest_in + utterance * TILES + tile, mask=tile < TILES, other=-float("inf"))
    frame = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = (utterance * tl.num_programs(1) + row) * frames + frame
    inside = frame < tl.load(lengths + utterance)
    energy = tl.load(values + at, mask=inside & (frame < frames), other=0.0)
    scaled = (tl.maximum(energy, tl.max(parts, 0) - span) + 4.0) / 4.0
    tl.store(values + at, tl.where(inside, scaled, 0.0), mask=frame < frames)
