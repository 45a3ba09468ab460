"""DNSMOS P.835 and P.808: predicted opinion scores of 16 kHz speech.

The networks are those of Microsoft's package ``speechmos`` (Reddy et al., "DNSMOS P.835", ICASSP
2022, arXiv:2110.01763; "DNSMOS", ICASSP 2021, arXiv:2010.15258), run by onnxruntime. What stands
before and behind them is written here, in numpy: the package itself is never imported, because it
needs four others that it does not declare, and loops for ever over an empty clip.

Figures are those of ``speechmos``, down to one oddity. It places the windows by
``int((second + 9.01) * 16000)``, which rounding makes one sample too short for the windows that
start at seconds 7 to 23 and 119 to 122; these it skips. Published figures are made this way, so
the same windows are skipped here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime

from speechadapt_eval.audio.sources import RATE
from speechadapt_eval.errors import EvalError

WINDOW_S = 9.01
_WINDOW = int(WINDOW_S * RATE)
_BATCH = 4  # windows at a time; more were slower

# From the networks' figures to opinion scores, highest power first: sig, bak, ovrl.
_SCALE = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)
_BANDS, _FFT, _HOP = 120, 321, 160


@dataclass(frozen=True)
class Scores:
    """Predicted opinions of one clip, 1 (bad) to 5 (excellent), means over its windows.

    Attributes:
        sig: Quality of the speech (P.835).
        bak: How little the background disturbs (P.835).
        ovrl: Overall (P.835).
        p808: Overall, by the network for P.808.
        windows: Over how many windows of ``WINDOW_S`` seconds.
    """

    sig: float
    bak: float
    ovrl: float
    p808: float
    windows: int


class Dnsmos:
    """The two networks, loaded.

    Attributes:
        version: Where they come from, e.g. ``speechmos 0.0.1.1``.

    Raises:
        EvalError: The package with the networks is not installed.
    """

    def __init__(self) -> None:
        try:
            package = metadata.distribution("speechmos")
        except metadata.PackageNotFoundError as error:
            raise EvalError(
                "DNSMOS is not installed: pip install 'speechadapt[mos]' brings its networks "
                "(package speechmos)"
            ) from error
        self.version = f"speechmos {package.version}"
        folder = Path(str(package.locate_file("speechmos/dnsmos_models")))
        self._p835 = _session(folder / "sig_bak_ovr.onnx")
        self._p808 = _session(folder / "model_v8.onnx")

    def __call__(self, samples: np.ndarray) -> Scores:
        """Score a clip; one shorter than the window is repeated until it is not.

        Args:
            samples: ``[samples]``, 16 kHz, in [-1, 1], at least one.

        Raises:
            ValueError: There are no samples.
        """
        windows = list(_windows(_tile(samples)))
        found = []
        for first in range(0, len(windows), _BATCH):
            waves = np.stack(windows[first : first + _BATCH])
            p835 = self._p835.run(None, {"input_1": waves.astype(np.float32)})[0]
            mels = np.stack([log_mel(wave[:-_HOP]) for wave in waves])
            p808 = self._p808.run(None, {"input_1": mels.astype(np.float32)})[0]
            scaled = [np.polyval(_SCALE[i], p835[:, i]) for i in range(3)]
            found.append(np.stack([*scaled, p808[:, 0]], axis=1))
        sig, bak, ovrl, p808_mean = np.concatenate(found).astype(np.float64).mean(axis=0)
        return Scores(float(sig), float(bak), float(ovrl), float(p808_mean), len(windows))


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Input of the P.808 network: mel power in dB below its maximum, ``(dB + 40) / 40``.

    Frames of 321 samples (Hann) every 160, 120 mel bands of Slaney's scale and area, at least
    -80 dB; what librosa's ``melspectrogram`` and ``power_to_db`` make with these settings.

    Args:
        wave: ``[samples]``, 16 kHz.

    Returns:
        ``[frames, 120]``; 900 frames for the 144,000 samples that the network hears.
    """
    padded = np.pad(wave.astype(np.float64), _FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    decibel = 10 * np.log10(np.maximum(power @ _MEL.T, 1e-10))
    decibel -= decibel.max()
    return (np.maximum(decibel, -80) + 40) / 40


def _tile(samples: np.ndarray) -> np.ndarray:
    """Double it until it fills a window, as ``speechmos`` does (so lengths are n, 2n, 4n ...)."""
    if not len(samples):
        raise ValueError("a clip without samples has no score")
    while len(samples) < _WINDOW:
        samples = np.concatenate([samples, samples])
    return samples


def _windows(samples: np.ndarray) -> Iterator[np.ndarray]:
    """One window a second, less those that are skipped (see the top)."""
    for second in range(int(len(samples) // RATE - WINDOW_S) + 1):
        window = samples[second * RATE : int((second + WINDOW_S) * RATE)]
        if len(window) == _WINDOW:
            yield window


def _session(path: Path) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class
        raise EvalError(f"cannot load {path}: {error}; install speechmos again") from error


def _mel_filters() -> np.ndarray:
    """Triangles of equal area on Slaney's mel scale, ``[bands, frequencies]``."""
    edges = _hertz(np.linspace(0, _mel(RATE / 2), _BANDS + 2))
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.fft.rfftfreq(_FFT, 1 / RATE)
    rise, fall = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    return np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)


# Slaney's scale: linear (3 mel for 200 Hz) up to 1 kHz, then 27 mel for a factor of 6.4.
_LOG_STEP = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + float(np.log(hertz / 1000)) / _LOG_STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * _LOG_STEP))


_MEL = _mel_filters()
