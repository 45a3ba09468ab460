"""Reading and writing sound; the only place that opens audio files.

Inside the library sound is 16 kHz mono float32 in [-1, 1], ``[samples]``.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from speechadapt.errors import AudioError
from speechadapt.files import replacing
from speechadapt.optional import torchaudio

SAMPLE_RATE = 16_000


def load_audio(
    source: str | Path, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """Read a recording, or a stretch of it, as 16 kHz mono.

    Args:
        source: Path of a file that libsndfile reads, or a Kaldi command ending in ``|`` that writes
            a WAV to its standard output.
        start: First second; None = the beginning.
        end: Last second; None = the end.

    Returns:
        float32 in [-1, 1], ``[samples]``; several channels are averaged.

    Raises:
        AudioError: Missing, empty, cut short, not audio, NaN inside, or a stretch outside of it.
    """
    name, stream = str(source), _open(source)
    try:
        with soundfile.SoundFile(stream) as file:
            rate, promised = file.samplerate, file.frames
            first = round((start or 0.0) * rate)
            last = promised if end is None else round(end * rate)
            # A segment may end a hair behind the recording: Kaldi's tools round to 10 ms.
            if last - promised <= rate // 100:
                last = min(last, promised)
            if not 0 <= first < last <= promised and promised:
                raise AudioError(
                    f"{name}: asked for {start or 0.0} … {end} s of a recording of "
                    f"{promised / rate:.3f} s; correct the segment"
                )
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, RuntimeError) as error:
        detail = str(error).rstrip(".").split(": ")[-1]
        raise AudioError(f"{name}: not readable as audio ({detail}); is it a sound file?") from error
    if not promised:
        raise AudioError(f"{name}: the recording has 0 samples; remove it or record it again")
    if len(samples) < last - first:
        raise AudioError(
            f"{name}: cut short, its header promises {last} samples and {first + len(samples)} are "
            "there; copy the file again"
        )
    wave = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.isfinite(wave).all():
        bad = int(np.flatnonzero(~np.isfinite(wave))[0])
        raise AudioError(f"{name}: sample {bad} is NaN or infinite; convert the file again")
    # Float files may go over full scale; the library's range is [-1, 1].
    return np.clip(resample(wave, rate, SAMPLE_RATE), -1.0, 1.0)


def audio_duration(source: str | Path) -> float:
    """Seconds of a recording, from its header where that is enough.

    Raises:
        AudioError: It cannot be read.
    """
    if str(source).rstrip().endswith("|"):
        return len(load_audio(source)) / SAMPLE_RATE
    stream = _open(source)
    try:
        return float(soundfile.info(stream).duration)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        detail = str(error).rstrip(".").split(": ")[-1]
        raise AudioError(f"{source}: not readable as audio ({detail}); is it a sound file?") from error


def write_flac(path: str | Path, samples: np.ndarray) -> None:
    """Write 16 kHz mono samples (``[samples]``) as 16-bit FLAC, whole or not at all."""
    with replacing(Path(path)) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Change the sample rate of ``[samples]`` float32 (soxr, high quality)."""
    if from_rate == to_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return soxr.resample(samples, from_rate, to_rate).astype(np.float32)


def resample_tensor(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate of ``[samples]`` where it lies.

    On a GPU torchaudio does it there; where torchaudio does not import, soxr does it on the CPU.
    """
    audio = torchaudio() if wave.is_cuda else None
    if audio is not None:
        return audio.functional.resample(wave, from_rate, to_rate)
    samples = resample(wave.detach().cpu().numpy(), from_rate, to_rate)
    return torch.from_numpy(samples).to(wave.device)


def _open(source: str | Path) -> str | io.BytesIO:
    """A path that exists and has bytes, or the output of a Kaldi command."""
    text = str(source).rstrip()
    if text.endswith("|"):
        command = text[:-1].strip()
        done = subprocess.run(command, shell=True, capture_output=True, check=False)
        if done.returncode or not done.stdout:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise AudioError(
                f"command {command!r}: exit code {done.returncode}, {len(done.stdout)} bytes of "
                f"audio; it said: {said[-1] if said else 'nothing'}"
            )
        return io.BytesIO(done.stdout)
    path = Path(text)
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, expected a sound file")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    if not size:
        raise AudioError(f"{path}: is empty; copy the file again")
    return text
