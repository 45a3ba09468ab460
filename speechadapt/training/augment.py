"""Augmentation of training audio: speed, noise at a given SNR, SpecAugment."""

from __future__ import annotations

import random

import numpy as np

from speechadapt.audio import SAMPLE_RATE, resample
from speechadapt.errors import ConfigError
from speechadapt.features import Features
from speechadapt.training.config import Augmentation

_TIME_SHARE = 0.1  # longest time mask, as share of the utterance
_BINS = 16  # widest frequency mask


def change_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """Play ``wave`` (``[samples]``) faster or slower; pitch changes with it (Ko et al. 2015)."""
    if speed == 1.0:
        return wave
    return resample(wave, round(SAMPLE_RATE * speed), SAMPLE_RATE)


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr: float, rng: random.Random) -> np.ndarray:
    """Add noise so that the speech is ``snr`` dB above it; the speech keeps its level.

    Args:
        speech: ``[samples]``.
        noise: ``[samples]``, of any length; a random stretch of it is taken, repeated if too short.
        snr: Signal-to-noise ratio in dB, over the whole utterance.
        rng: Chooses the stretch.
    """
    start = rng.randrange(max(1, len(noise) - len(speech) + 1))
    stretch = np.resize(noise[start:], len(speech))
    noise_power = float(np.mean(stretch.astype(np.float64) ** 2))
    speech_power = float(np.mean(speech.astype(np.float64) ** 2))
    if noise_power == 0.0 or speech_power == 0.0:
        return speech
    gain = np.sqrt(speech_power / noise_power / 10 ** (snr / 10))
    return (speech + gain * stretch).astype(np.float32)


def spec_augment(mel: Features, augmentation: Augmentation, rng: random.Random) -> Features:
    """Mask stretches of time and bands of frequency with zeros (Park et al. 2019).

    In waves, stretches of time become silence.
    """
    if mel.values.dim() != 3 and augmentation.frequency_masks:
        raise ConfigError(
            "frequency masks need a spectrogram, and this base reads waves; take time masks"
        )
    values = mel.values.clone()
    bins = values.shape[1]
    for row, frames in zip(values, mel.lengths.tolist(), strict=True):
        for _ in range(augmentation.time_masks):
            width = rng.randint(0, int(_TIME_SHARE * frames))
            start = rng.randint(0, frames - width)
            row[..., start : start + width] = 0.0
        for _ in range(augmentation.frequency_masks):
            width = rng.randint(0, min(_BINS, bins))
            start = rng.randint(0, bins - width)
            row[start : start + width] = 0.0
    return Features(values, mel.lengths)
