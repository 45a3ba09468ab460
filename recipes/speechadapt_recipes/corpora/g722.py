"""Decodes raw G.722 files (64 kbit/s, 16 kHz) with ffmpeg, or with PyAV where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from speechadapt.errors import AudioError


def check_decoder() -> None:
    """Say at once what is missing, instead of once for each file.

    Raises:
        AudioError: There is neither ffmpeg nor PyAV.
    """
    if not (shutil.which("ffmpeg") or find_spec("av")):
        raise AudioError(
            "G.722 recordings need ffmpeg, which is not on the PATH; install it (apt install "
            "ffmpeg) or PyAV (pip install av)"
        )


def decode_g722(path: str) -> np.ndarray:
    """Samples ``[samples]`` of a raw G.722 file: float32 in [-1, 1], 16 kHz mono.

    Raises:
        AudioError: The file is missing or empty, or there is no decoder.
    """
    file = Path(path)
    if not file.is_file() or not file.stat().st_size:
        raise AudioError(f"{path}: is missing or empty; unpack the archive again")
    check_decoder()
    if shutil.which("ffmpeg"):
        return _with_ffmpeg(path)
    return _with_av(path)


def _with_ffmpeg(path: str) -> np.ndarray:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "g722", "-i", path]
    command += ["-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise AudioError(f"{path}: ffmpeg cannot decode it ({said}); unpack the archive again")
    return _scaled(np.frombuffer(done.stdout, dtype="<i2"))


def _with_av(path: str) -> np.ndarray:
    av = import_module("av")
    try:
        with av.open(path, format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise AudioError(f"{path}: PyAV cannot decode it ({error}); unpack it again") from error
    if not frames:
        raise AudioError(f"{path}: has no sound; unpack the archive again")
    return _scaled(np.concatenate(frames))


def _scaled(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768
