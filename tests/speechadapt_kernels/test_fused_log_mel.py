"""Log-mel features as one operator: both paths against the definition in float64."""

import numpy as np
import pytest
import torch
from librosa.filters import mel
from operating import DEVICE, difference, randn

from speechadapt_kernels.logmel import log_mel
from speechadapt_kernels.logmel.naive import naive_log_mel


def filters(bins=80):
    return torch.from_numpy(mel(sr=16_000, n_fft=400, n_mels=bins))


def waves(batch, samples, seed=1):
    """Noise that fades by 120 dB, so that some of it is below what is clamped."""
    fading = torch.logspace(0, -6, samples, dtype=torch.float64)
    return (0.3 * randn(batch, samples, seed=seed) * fading).float()


def run(x, lengths, bins, frames):
    where = torch.tensor(lengths, device=DEVICE)
    return log_mel(x.to(DEVICE), where, filters(bins).to(DEVICE), frames)


@pytest.mark.parametrize(
    ("samples", "lengths", "bins", "frames"),
    [
        (800, [4], 80, 4),  # the end of what there is
        (800, [2, 10], 80, 10),  # silence behind it
        (3211, [7, 20], 128, 20),
        (201, [1], 80, 1),  # mirrored on both sides
    ],
)
def test_equal_to_the_definition(operators, samples, lengths, bins, frames):
    x = waves(len(lengths), samples)
    found = run(x, lengths, bins, frames)
    wanted = naive_log_mel(x, torch.tensor(lengths), filters(bins), frames)
    assert found.dtype == torch.float32
    assert difference(found, wanted) < 1e-5
    for row, length in zip(found, lengths, strict=True):
        assert not row[:, length:].any()


def test_silence_and_one_tone(operators):
    time = np.arange(1920) / 16_000
    x = torch.from_numpy(np.stack([0 * time, 0.5 * np.sin(2 * np.pi * 1000 * time)])).float()
    silent, tone = run(x, [12, 12], 80, 12).cpu()
    assert torch.equal(silent, torch.full_like(silent, -1.5))
    wanted = naive_log_mel(x[1:], torch.tensor([12]), filters(), 12)
    assert difference(tone[None], wanted) < 1e-5
    # Slaney's mel scale is linear up to 1 kHz: 15 mels of the 45.2 of 8 kHz.
    assert (tone.argmax(0) - 26).abs().max() <= 1


def test_the_same_twice_and_alone(operators):
    x = waves(2, 800)
    first = run(x, [5, 3], 80, 5)
    assert torch.equal(run(x, [5, 3], 80, 5), first)
    assert torch.equal(run(x[1:2], [3], 80, 5), first[1:2])


def test_operator_is_well_behaved(operators):
    where = torch.tensor([2], device=DEVICE)
    args = (waves(1, 320).to(DEVICE), where, filters().to(DEVICE), 3)
    torch.library.opcheck(torch.ops.speechadapt.log_mel.default, args)


@pytest.mark.parametrize(
    ("shape", "lengths", "dtype", "words"),
    [
        ((2, 800), [4], torch.float32, "are not"),
        ((1, 200), [4], torch.float32, "half a window"),
        ((1, 800), [4], torch.float64, "expected both in float32 or float64"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(shape, lengths, dtype, words):
    with pytest.raises(ValueError, match=words):
        log_mel(torch.zeros(shape, dtype=dtype), torch.tensor(lengths), filters(), 4)
