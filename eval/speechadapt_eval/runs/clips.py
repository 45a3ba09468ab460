"""The sound of an utterance, as a system wants it: bytes, samples, or a file.

A clip knows nothing of its reference, so that no system can see one.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

_WAV = (b"RIFF", b"RIFX", b"RF64")
# Kinds of samples that a cut-out WAV keeps; others become 16-bit numbers.
_KEPT = {"PCM_16": "int16", "PCM_24": "int32", "PCM_32": "int32", "FLOAT": "float32"}


class ClipError(Exception):
    """The sound of one utterance cannot be had: a sentence with the path and the reason."""


@dataclass(frozen=True)
class Clip:
    """One utterance to be transcribed.

    Attributes:
        id: Unique in its set.
        audio: Path of a sound file, or a Kaldi command that ends in ``|`` and writes one.
        lang: Language, e.g. ``be``; None if not known.
        start: First second in the file; None = the beginning.
        end: Last second; None = the end of the file.
        content: What ``data`` returns, once it was read.
    """

    id: str
    audio: str
    lang: str | None = None
    start: float | None = None
    end: float | None = None
    content: bytes | None = field(default=None, compare=False, repr=False)

    def loaded(self) -> Clip:
        """The same, its sound in memory: no clock should count a disk or a command.

        Raises:
            ClipError: It cannot be read.
        """
        return replace(self, content=self.data())

    def data(self) -> bytes:
        """The bytes of a sound file: those on disk, or a WAV where only a stretch is wanted.

        Raises:
            ClipError: It cannot be read.
        """
        if self.content is not None:
            return self.content
        if self._is_command or self._is_whole:
            data = _output(self.audio) if self._is_command else _content(self.audio)
            return data if self._is_whole else _cut(io.BytesIO(data), self)
        return _cut(self.audio, self)  # of an hour's recording only the stretch is read

    def samples(self, rate: int = 16_000) -> np.ndarray:
        """Mono samples, float32 ``[samples]``; channels are averaged.

        Args:
            rate: Samples a second of what is returned (soxr, high quality).

        Raises:
            ClipError: It cannot be read.
        """
        try:
            wave, own = soundfile.read(io.BytesIO(self.data()), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise ClipError(f"{self.audio}: not readable as audio ({error})") from error
        mono = wave.mean(axis=1) if wave.shape[1] > 1 else wave[:, 0]
        return mono if own == rate else soxr.resample(mono, own, rate).astype(np.float32)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A file with this sound in the format it has, for the time of the block.

        Raises:
            ClipError: It cannot be read.
        """
        if self._is_whole and not self._is_command:
            path = Path(self.audio)
            if not path.is_file():
                raise ClipError(f"{path}: there is no such file")
            yield path.absolute()
            return
        with _temporary(self.data(), ".wav" if not self._is_whole else "") as path:
            yield path

    @contextmanager
    def wav(self) -> Iterator[Path]:
        """As ``file``, but always a WAV: other formats are decoded into one.

        Raises:
            ClipError: It cannot be read.
        """
        data = self.data()
        if data[:4] in _WAV:
            if self._is_whole and not self._is_command:
                yield Path(self.audio).absolute()
                return
        else:
            data = _cut(io.BytesIO(data), replace(self, start=None, end=None))
        with _temporary(data, ".wav") as path:
            yield path

    @property
    def _is_command(self) -> bool:
        return self.audio.rstrip().endswith("|")

    @property
    def _is_whole(self) -> bool:
        return self.start is None and self.end is None


def duration(data: bytes) -> float | None:
    """Seconds of a sound file, as its header says; None if the format is not known here."""
    try:
        return float(soundfile.info(io.BytesIO(data)).duration)
    except (soundfile.LibsndfileError, TypeError):
        return None


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ClipError(f"{path}: cannot be read ({reason})") from error


def _output(audio: str) -> bytes:
    command = audio.rstrip()[:-1].strip()
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ClipError(
            f"command {command!r}: exit code {done.returncode}, {len(done.stdout)} bytes of audio"
            + (f"; it said: {said[-1]}" if said else "")
        )
    return done.stdout


def _cut(source: str | io.BytesIO, clip: Clip) -> bytes:
    """A WAV of a clip's stretch of a sound file, its samples as they were."""
    name, start, end = clip.audio, clip.start, clip.end
    try:
        with soundfile.SoundFile(source) as file:
            rate, frames = file.samplerate, file.frames
            first = round((start or 0.0) * rate)
            last = frames if end is None else round(end * rate)
            if frames < last <= frames + rate // 100:  # Kaldi's tools round times to 10 ms
                last = frames
            if not 0 <= first < last <= frames:
                raise ClipError(
                    f"{name}: a stretch from {start or 0:g} s to {end} s of {frames / rate:g} s"
                )
            kind = file.subtype if file.subtype in _KEPT else "PCM_16"
            file.seek(first)
            samples = file.read(last - first, dtype=_KEPT[kind])
    except (soundfile.LibsndfileError, TypeError) as error:
        raise ClipError(f"{name}: not readable as audio ({error})") from error
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format="WAV", subtype=kind)
    return target.getvalue()


@contextmanager
def _temporary(data: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="speechadapt-eval-", suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
