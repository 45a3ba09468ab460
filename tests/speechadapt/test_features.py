"""Log-mel features: equal to transformers', and independent of the batch they are computed in."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from speechadapt.features import FULL_FRAMES, LogMel


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_equal_to_transformers_at_30_seconds(waves, mel_bins):
    rng = np.random.default_rng(1)
    full = 0.1 * rng.standard_normal(480_000).astype(np.float32)
    batch = [*waves, full, full[:479_990], np.concatenate([full, full])[:500_000], waves[0] * 0]
    theirs = WhisperFeatureExtractor(feature_size=mel_bins)(
        batch, sampling_rate=16_000, return_tensors="pt"
    ).input_features
    ours = LogMel(mel_bins)(batch, None)
    assert ours.values.shape == (len(batch), mel_bins, FULL_FRAMES)
    torch.testing.assert_close(ours.values, theirs, rtol=0, atol=1e-5)
    assert ours.lengths.tolist() == [FULL_FRAMES] * len(batch)


def test_short_context_is_the_beginning_of_the_full_one(waves):
    full, short = LogMel(80)(waves, None), LogMel(80)(waves, 0.5)
    for row, length in enumerate(short.lengths.tolist()):
        expected = full.values[row, :, :length]
        torch.testing.assert_close(short.values[row, :, :length], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("trailing_silence", [0.0, 0.013, 0.5, 2.56])
def test_neighbours_in_the_batch_change_nothing(waves, trailing_silence):
    log_mel = LogMel(80)
    together = log_mel(waves, trailing_silence)
    for row, wave in enumerate(waves):
        alone = log_mel([wave], trailing_silence)
        length = int(alone.lengths[0])
        assert together.lengths[row] == length
        assert torch.equal(together.values[row, :, :length], alone.values[0])
        assert not together.values[row, :, length:].any()


def test_lengths_are_even_and_cover_audio_and_silence(waves):
    lengths = LogMel(80)(waves, 0.25).lengths
    for wave, length in zip(waves, lengths.tolist(), strict=True):
        seconds = len(wave) / 16_000 + 0.25
        assert length % 2 == 0
        assert seconds <= length * 0.01 < seconds + 0.02 + 1e-9


def test_an_empty_wave_still_has_a_frame():
    assert LogMel(80)([np.zeros(0, np.float32)], 0.0).lengths.tolist() == [2]
