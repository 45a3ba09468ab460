"""Reading and writing sound; the only place that opens audio files.

Inside the library sound is 16 kHz mono float32 in [-1, 1], ``[samples]``.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile
import soxr

from speechadapt.errors import AudioError
from speechadapt.files import replacing
from speechadapt.optional import torchaudio
from speechadapt.truncation import missing_bytes

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000
LOWEST_RATE = 2_000  # a header that claims less is damaged, and resampling it would fill the memory


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
    if not all(isfinite(edge) for edge in (start, end) if edge is not None):
        raise AudioError(f"{source}: asked for {start} … {end} s; give numbers of seconds")
    with _sound(source) as file:
        rate, promised = file.samplerate, file.frames
        first = round((start or 0.0) * rate)
        last = promised if end is None else round(end * rate)
        # A segment may end a hair behind the recording: Kaldi's tools round to 10 ms.
        if last - promised <= rate // 100:
            last = min(last, promised)
        if not 0 <= first < last <= promised:
            until = "the end" if end is None else f"{end} s"
            raise AudioError(
                f"{source}: asked for {start or 0.0} s to {until} of a recording of "
                f"{promised / rate:.3f} s; correct the segment"
            )
        file.seek(first)
        samples = file.read(last - first, dtype="float32", always_2d=True)
    if len(samples) < last - first:
        raise AudioError(
            f"{source}: cut short, its header promises {last} samples and {first + len(samples)} "
            "are there; copy the file again"
        )
    finite = np.isfinite(samples).all(axis=1)
    if not finite.all():
        bad = first + int(np.argmin(finite))
        raise AudioError(f"{source}: sample {bad} is NaN or infinite; convert the file again")
    wave = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    # Float files may go over full scale; the library's range is [-1, 1].
    return np.clip(resample(wave, rate, SAMPLE_RATE), -1.0, 1.0)


def audio_duration(source: str | Path) -> float:
    """Seconds of a recording, as its header says; only commands are run and read to the end.

    Raises:
        AudioError: It cannot be read.
    """
    with _sound(source) as file:
        return float(file.frames / file.samplerate)


def write_flac(path: str | Path, samples: np.ndarray) -> None:
    """Write 16 kHz mono samples (``[samples]``) as 16-bit FLAC, whole or not at all.

    Raises:
        AudioError: The disk is full, or the folder cannot be written.
        OutputError: It lies below a file, or is a folder.
    """
    try:
        with replacing(Path(path)) as temporary:
            soundfile.write(temporary, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(
            f"{path}: cannot be written ({error}); see that the disk has room"
        ) from error


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Change the sample rate of ``[samples]`` float32 (soxr, high quality)."""
    if from_rate == to_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return soxr.resample(samples, from_rate, to_rate).astype(np.float32)


def resample_tensor(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate of ``[samples]`` where it lies.

    On a GPU torchaudio does it there; where torchaudio does not import, soxr does it on the CPU.
    No gradient passes through.
    """
    audio = torchaudio() if wave.is_cuda else None
    if audio is not None:
        return audio.functional.resample(wave.detach(), from_rate, to_rate)
    import torch  # seconds to import; preparing data does without

    samples = resample(wave.detach().cpu().numpy(), from_rate, to_rate)
    return torch.from_numpy(samples).to(wave.device)


@contextmanager
def _sound(source: str | Path) -> Iterator[soundfile.SoundFile]:
    """An open sound file with at least one sample; whatever is wrong with it is an AudioError."""
    try:
        with _open(source) as stream:
            if missing := missing_bytes(stream):
                raise AudioError(
                    f"{source}: cut short, {missing} bytes of sound are missing at its end; copy "
                    "the file again"
                )
            stream.seek(0)
            with soundfile.SoundFile(stream) as file:
                if not file.frames:
                    raise AudioError(
                        f"{source}: the recording has 0 samples; remove it or record it again"
                    )
                if file.samplerate < LOWEST_RATE:
                    raise AudioError(
                        f"{source}: a sample rate of {file.samplerate} Hz cannot be speech; "
                        "convert the file again"
                    )
                yield file
    # soundfile raises TypeError for names that end in .raw, whose format it cannot know.
    except (soundfile.LibsndfileError, TypeError, RuntimeError, OSError) as error:
        detail = str(error).rstrip(".").split(": ")[-1]
        raise AudioError(
            f"{source}: not readable as audio ({detail}); if it is whole, convert it to WAV or FLAC"
        ) from error


def _open(source: str | Path) -> BinaryIO:
    """The bytes of a file that is not empty, or of what a Kaldi command writes."""
    text = str(source)
    if text.rstrip().endswith("|"):
        command = text.rstrip()[:-1].strip()
        done = subprocess.run(command, shell=True, capture_output=True, check=False)
        if done.returncode or not done.stdout:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise AudioError(
                f"command {command!r}: exit code {done.returncode}, {len(done.stdout)} bytes of "
                f"audio; it said: {said[-1] if said else 'nothing'}; run it by hand to see more"
            )
        return io.BytesIO(done.stdout)
    path = Path(text)
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, expected a sound file")
    try:
        if not path.stat().st_size:
            raise AudioError(f"{path}: is empty; copy the file again")
        return path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AudioError(f"{path}: cannot be opened ({reason}); check the path") from error
