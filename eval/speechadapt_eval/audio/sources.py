"""Which audio there is, and reading it: 16 kHz mono, or a reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import read_kaldi_text, read_utts

RATE = 16_000
FULL_SCALE = 0.999  # of 1: samples from here on count as cut off
SILENCE_DB = -60.0  # dBFS; "silent" is audio of which less than 5 % is louder than this
_FRAME = 320  # samples (20 ms) of one level
_SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".aif"}


class Unscorable(Exception):
    """Why this audio gets no score; it becomes the ``reason`` of its row."""


@dataclass(frozen=True)
class Source:
    """A piece of audio.

    Attributes:
        id: Utterance id, or a file's name without its suffix.
        path: The file.
        start: Seconds into the file.
        end: Seconds; None for the end of the file.
        group: What it was given with: a data directory, a manifest, a folder.
    """

    id: str
    path: Path
    start: float = 0.0
    end: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Audio:
    """Audio as it was read.

    Attributes:
        samples: ``[samples]``, float64 in [-1, 1] unless the file goes beyond; mean of channels.
        rate: Samples a second.
        channels: Of the file.
    """

    samples: np.ndarray
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate

    @property
    def clipped(self) -> float:
        """Share of the samples that are at full scale."""
        return float((np.abs(self.samples) >= FULL_SCALE).mean()) if len(self.samples) else 0.0

    def at_16_khz(self) -> np.ndarray:
        """Samples at 16 kHz (soxr); what the filter overshoots full scale by is cut off."""
        if self.rate == RATE:
            return self.samples
        return np.clip(soxr.resample(self.samples, self.rate, RATE), -1, 1)


def find_sources(given: Sequence[Path]) -> list[Source]:
    """List the audio of files, folders, Kaldi data directories and JSONL manifests.

    Ids are unique within a group. Files of one folder are a group, named after it.

    Args:
        given: A folder with ``wav.scp`` is a data directory (with ``segments``, if it has them);
            ``*.jsonl`` a manifest with ``id``, ``audio`` (relative to it) and perhaps ``start``
            and ``end``, as ``utts.jsonl``; any other folder is searched for audio files.

    Raises:
        EvalError: Something is not there, damaged or empty, or an id occurs twice in a group.
    """
    sources: dict[tuple[str, str], Source] = {}
    for path in given:
        for source in _sources(path):
            if (twin := sources.setdefault((source.group, source.id), source)) is not source:
                raise EvalError(
                    f"{source.path}: {source.id!r} of {source.group} is also {twin.path}; "
                    "give each once"
                )
    return list(sources.values())


def read_audio(source: Source) -> Audio:
    """Read the audio of a source.

    Raises:
        Unscorable: It cannot be read, has no samples, or samples that are no numbers.
    """
    try:
        with soundfile.SoundFile(source.path) as file:
            rate = file.samplerate
            file.seek(min(round(source.start * rate), file.frames))
            stop = -1 if source.end is None else round(source.end * rate) - file.tell()
            samples = file.read(stop, dtype="float64", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise Unscorable(f"unreadable: {_why(error, source.path)}") from error
    if not len(samples):
        raise Unscorable("no samples")
    if not np.isfinite(samples).all():
        raise Unscorable("has samples that are NaN or infinite")
    return Audio(samples.mean(axis=1), rate, samples.shape[1])


def is_silent(samples: np.ndarray) -> bool:
    """Whether less than 5 % of it (in frames of 20 ms) is louder than ``SILENCE_DB``."""
    whole = len(samples) // _FRAME * _FRAME
    frames = samples[:whole].reshape(-1, _FRAME) if whole else samples[None]
    power = np.quantile((frames**2).mean(axis=1), 0.95)
    return bool(power < 10 ** (SILENCE_DB / 10))


def _sources(path: Path) -> Iterator[Source]:
    if (path / "wav.scp").is_file():
        yield from _data_dir(path)
    elif path.is_dir():
        yield from _folder(path)
    elif path.suffix == ".jsonl":
        yield from _manifest(path)
    elif path.is_file():
        yield Source(path.stem, path, group=str(path.parent))
    else:
        raise EvalError(
            f"{path} is not there: give an audio file, a folder, a Kaldi data directory or a .jsonl"
        )


def _data_dir(folder: Path) -> Iterator[Source]:
    scp = folder / "wav.scp"
    recordings = read_kaldi_text(scp)
    for name, audio in recordings.items():
        if not audio or audio.endswith("|"):
            what = "has no path" if not audio else "is a command"
            raise EvalError(f"{scp}: {name!r} {what}; write the audio to a file and give its path")
    segments = folder / "segments"
    if not segments.is_file():
        for name, audio in recordings.items():
            yield Source(name, Path(audio), group=str(folder))
        return
    for name, line in read_kaldi_text(segments).items():
        try:
            recording, start, end = line.split()
            stretch = _stretch(float(start), float(end))
        except ValueError as error:
            raise EvalError(
                f"{segments}: {name!r} needs a recording, start and end in seconds, not {line!r}"
            ) from error
        if recording not in recordings:
            raise EvalError(f"{segments}: recording {recording!r} of {name!r} is not in {scp}")
        yield Source(name, Path(recordings[recording]), *stretch, group=str(folder))


def _manifest(path: Path) -> Iterator[Source]:
    for name, row in read_utts(path).items():
        audio, start, end = (row.fields.get(key) for key in ("audio", "start", "end"))
        if not isinstance(audio, str) or not audio:
            raise EvalError(f"{path}: {name!r} has no 'audio' (the path of its file)")
        try:
            stretch = _stretch(float(start or 0), None if end is None else float(end))
        except (TypeError, ValueError) as error:
            raise EvalError(
                f"{path}: 'start' {start!r} and 'end' {end!r} of {name!r} are no seconds in order"
            ) from error
        yield Source(name, path.parent / audio, *stretch, group=str(path))


def _folder(folder: Path) -> Iterator[Source]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not files:
        raise EvalError(f"{folder} has no audio files; for a Kaldi data directory, wav.scp is gone")
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield Source(name, path, group=str(folder))


def _stretch(start: float, end: float | None) -> tuple[float, float | None]:
    """The two as they are.

    Raises:
        ValueError: They are no times in order.
    """
    if not 0 <= start < (float("inf") if end is None else end):
        raise ValueError(f"{start} to {end}")
    if end == float("inf"):
        raise ValueError("no end")
    return start, end


def _why(error: Exception, path: Path) -> str:
    if not path.exists():
        return "no such file"
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return str(getattr(error, "strerror", None) or error).strip()
