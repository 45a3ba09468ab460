"""What a line or a room does to speech; generated, and drawn from the generator that is given.

Every function keeps the length and returns float32 in [-1, 1], ``[samples]``, 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

from speechadapt.audio import SAMPLE_RATE, resample

_TELEPHONE_RATE = 8_000
_MU = 255  # of G.711's µ-law
_PACKET = SAMPLE_RATE // 50  # 20 ms, what voice over IP sends at once


def telephone(wave: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz, 8 kHz, µ-law in 8 bits (G.711, by its formula instead of its segments)."""
    band = signal.butter(4, (300, 3400), "bandpass", fs=_TELEPHONE_RATE, output="sos")
    narrow = signal.sosfilt(band, resample(wave, SAMPLE_RATE, _TELEPHONE_RATE)).clip(-1, 1)
    squeezed = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    steps = np.round(squeezed * 127) / 127
    sent = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(_MU)) / _MU
    return _fitted(resample(sent.astype(np.float32), _TELEPHONE_RATE, SAMPLE_RATE), len(wave))


def clipped(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut off at 5 to 20 % of its peak, and as loud as before."""
    limit = rng.uniform(0.05, 0.2) * np.abs(wave).max(initial=1e-6)
    return _as_loud_as(wave, wave.clip(-limit, limit))


def lossy(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One packet of 20 ms in five to ten is silence."""
    packets = -(-len(wave) // _PACKET)
    kept = rng.random(packets) >= rng.uniform(0.1, 0.2)
    return (wave * np.repeat(kept, _PACKET)[: len(wave)]).astype(np.float32)


def distant(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room whose echo, noise that decays by 60 dB in 0.4 to 0.9 s, is as strong as the voice."""
    seconds = rng.uniform(0.4, 0.9)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    echo[: SAMPLE_RATE // 200] = 0.0  # the first wall is a metre and a half away
    echo /= np.linalg.norm(echo)
    echo[0] = 1.0
    return _as_loud_as(wave, signal.fftconvolve(wave, echo)[: len(wave)])


def muffled(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing above 800 to 1500 Hz, as through a wall."""
    low = signal.butter(6, rng.uniform(800, 1500), "lowpass", fs=SAMPLE_RATE, output="sos")
    return _as_loud_as(wave, signal.sosfilt(low, wave))


def clean(wave: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    """As it is."""
    return wave


CHANNELS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": clean,
    "clipped": clipped,
    "distant": distant,
    "lossy": lossy,
    "muffled": muffled,
    "telephone": telephone,
}


def _fitted(wave: np.ndarray, length: int) -> np.ndarray:
    """Resampling may give or take a sample."""
    return np.pad(wave, (0, max(0, length - len(wave))))[:length].clip(-1, 1).astype(np.float32)


def _as_loud_as(reference: np.ndarray, wave: np.ndarray) -> np.ndarray:
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    wanted = float(np.mean(np.square(reference, dtype=np.float64)))
    gain = np.sqrt(wanted / power) if power else 1.0
    return (gain * wave).clip(-1, 1).astype(np.float32)
