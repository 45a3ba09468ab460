"""Voice activity: the probability of speech, 32 ms by 32 ms.

Silero's network (MIT) does the work. Where it cannot be had, loudness does, and a warning says so.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from speechadapt.backbones.mirrors import cache_folder
from speechadapt.errors import FetchError
from speechadapt.fetch import Archive, fetch
from speechadapt.files import replacing

FRAME = 512  # samples: 32 ms
_CONTEXT = 64  # samples of the previous frame that the network also sees
_BLOCK = 1024  # frames a call: 33 s
_WHEEL = Archive(
    name="silero_vad-6.2.3-py3-none-any.whl",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    kind="wheel",
    package="silero-vad",
    version="6.2.3",
    licence="Silero VAD, MIT",
    size=11_317_527,
)
_MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"
_MEMBER_SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
_log = logging.getLogger(__name__)


class VoiceActivity(Protocol):
    """Tells speech from everything else."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Probability of speech in each frame of 512 samples, ``[ceil(samples / 512)]``."""
        ...


class SileroVad:
    """Silero VAD in onnxruntime, on one thread: a hundred times faster than real time.

    Args:
        path: The network that reads a sequence of 16 kHz frames.
    """

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Probability of speech in each frame of 512 samples, ``[ceil(samples / 512)]``."""
        frames = _frames(samples)
        before = np.zeros((len(frames), _CONTEXT), dtype=np.float32)
        before[1:] = frames[:-1, -_CONTEXT:]
        inputs = np.concatenate([before, frames], axis=1)
        hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
        found = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(inputs), _BLOCK):
            block = {"input": inputs[start : start + _BLOCK], "h": hidden, "c": cell}
            probabilities, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], block)
            found.append(probabilities.reshape(-1))
        return np.concatenate(found)


class EnergyVad:
    """Loudness above the noise floor, for where no network can be had.

    The floor is the 10th percentile of the frames' levels, the ceiling the 95th. Half-way between
    them in dB the probability is 0.5. Sound that hardly changes (a range under 6 dB) cannot be
    judged and all counts as speech, though its quietest frames least; below -60 dBFS nothing does.
    """

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Pretended probability in each frame of 512 samples, ``[ceil(samples / 512)]``."""
        frames = _frames(samples)
        if not len(frames):
            return np.zeros(0, dtype=np.float32)
        level = 10 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=1) + 1e-10)
        # 5 frames smooth over the gaps inside syllables.
        level = np.convolve(np.pad(level, 2, mode="edge"), np.full(5, 0.2), mode="valid")
        floor, ceiling = np.percentile(level, [10, 95])
        probability = np.clip((level - floor) / max(ceiling - floor, 1e-3), 0, 1)
        if ceiling - floor < 6:
            probability = 0.5 + probability / 2
        return np.where(level < -60, 0, probability).astype(np.float32)


def load_vad(home: Path | None = None, *, offline: bool = False) -> VoiceActivity:
    """Silero's network from the cache or its package; else loudness, with a warning.

    The package is not installed, only read: it asks for a torchaudio that may not fit.

    Args:
        home: Cache folder; default ``$SPEECHADAPT_HOME`` or ``~/.cache/speechadapt``.
        offline: Download nothing.
    """
    home = home or cache_folder()
    path = home / "silero_vad_16k.onnx"
    downloads = home / "downloads"
    try:
        if not _is_intact(path):
            wheel = fetch(_WHEEL, downloads, downloads if offline else None)
            with zipfile.ZipFile(wheel) as members, replacing(path) as temporary:
                temporary.write_bytes(members.read(_MEMBER))
    except (FetchError, OSError) as error:
        _log.warning("long files are cut by loudness, as Silero VAD cannot be had: %s", error)
        return EnergyVad()
    return SileroVad(path)


def _is_intact(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _MEMBER_SHA256


def _frames(samples: np.ndarray) -> np.ndarray:
    """``[frames, 512]``, the last filled with zeros."""
    count = -(-len(samples) // FRAME)
    frames = np.zeros((count, FRAME), dtype=np.float32)
    frames.reshape(-1)[: len(samples)] = samples
    return frames
