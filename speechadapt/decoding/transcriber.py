"""Many recordings to text: batches by length, long recordings by windows, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from speechadapt.audio import SAMPLE_RATE
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.decoding.ctc import decode_ctc
from speechadapt.decoding.longform import WINDOW_SECONDS, Span, join, windows
from speechadapt.decoding.options import DecodeOptions
from speechadapt.decoding.search import Hypothesis, decode, detect_languages
from speechadapt.decoding.vad import VoiceActivity, load_vad
from speechadapt.errors import ConfigError
from speechadapt.model import SpeechModel
from speechadapt.route import Route

_FULL_SECONDS = 30.0
_LOOKAHEAD_SECONDS = 600.0  # of sound kept in memory, so that batches hold equal lengths


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Attributes:
        id: As it was given.
        seconds: Length of the recording.
        hypothesis: The whole text and what is known of it.
    """

    id: str
    seconds: float
    hypothesis: Hypothesis

    @property
    def text(self) -> str:
        """The text alone."""
        return self.hypothesis.text


@dataclass
class _Recording:
    id: str
    samples: np.ndarray
    spans: list[Span]
    route: Route
    language: str | None
    found: dict[int, Hypothesis] = field(default_factory=dict)

    def transcript(self) -> Transcript:
        hypothesis = join(self.spans, [self.found[i] for i in range(len(self.spans))])
        return Transcript(self.id, len(self.samples) / SAMPLE_RATE, hypothesis)


def transcribe(
    model: SpeechModel,
    items: Iterable[tuple[str, np.ndarray]],
    *,
    route: Route,
    options: DecodeOptions,
    trailing_silence: float | None,
    routes: Mapping[str, Route] | None = None,
    languages: Mapping[str, str] | None = None,
    batch_seconds: float = 60.0,
    vad: Callable[[], VoiceActivity] = load_vad,
    progress: Callable[[float], object] | Literal[False] | None = None,
) -> Iterator[Transcript]:
    """Transcribe recordings of any length; results come in the order of ``items``.

    ``items`` is read about ten minutes of sound ahead. Where the language is to be detected, a
    recording of several windows gets that of its first.

    Args:
        model: The frozen model and its adapters.
        items: Id and samples, mono float32 at 16 kHz.
        route: What recordings use that are not among ``routes``.
        options: Settings of the search.
        trailing_silence: Seconds after each window; None = Whisper's own 30 s.
        routes: Of recordings by id; a batch may hold any of them.
        languages: Of recordings by id, where known; the others have that of ``options``.
        batch_seconds: Most seconds of a batch, silence and padding included.
        vad: Makes the detector; called only if a recording is longer than a window.
        progress: Told the seconds of sound after each batch.

    Raises:
        ConfigError: A setting is out of range, or the model does not know the language.
        RouteError: The route's adapter is not loaded.
    """
    if not batch_seconds > 0:  # also what is no number
        raise ConfigError(f"batch_seconds {batch_seconds} must be above 0")
    if trailing_silence is not None and not 0 <= trailing_silence <= _FULL_SECONDS:
        raise ConfigError(f"trailing silence is {trailing_silence} s: use 0 to 30, or the full 30")
    detector: VoiceActivity | None = None
    waiting: list[_Recording] = []
    for name, samples in items:
        if detector is None and len(samples) > WINDOW_SECONDS * SAMPLE_RATE:
            detector = vad()
        language = (languages or {}).get(name, options.language)
        own = (routes or {}).get(name, route)
        recording = _Recording(name, samples, windows(samples, detector), own, language)
        if len(recording.spans) > 1 and language is None and _detects(model):
            first = _cut(recording, 0)
            encoded = model.encode([first], [own], trailing_silence)
            recording.language = detect_languages(model, encoded, [own])[0][0]
        waiting.append(recording)
        if sum(len(r.samples) for r in waiting) >= _LOOKAHEAD_SECONDS * SAMPLE_RATE:
            yield from _finish(model, waiting, options, trailing_silence, batch_seconds, progress)
            waiting = []
    yield from _finish(model, waiting, options, trailing_silence, batch_seconds, progress)


def _finish(
    model: SpeechModel,
    recordings: Sequence[_Recording],
    options: DecodeOptions,
    trailing_silence: float | None,
    batch_seconds: float,
    progress: Callable[[float], object] | Literal[False] | None,
) -> Iterator[Transcript]:
    cuts = [(r, index) for r in recordings for index in range(len(r.spans))]
    for batch in _batches(cuts, trailing_silence, batch_seconds):
        waves = [_cut(recording, index) for recording, index in batch]
        encoded = model.encode(waves, [recording.route for recording, _ in batch], trailing_silence)
        for search, rows in _searches(model, batch).items():
            mine = [batch[row] for row in rows]
            hypotheses = search(
                model,
                encoded if len(mine) == len(batch) else encoded.rows(torch.tensor(rows)),
                [recording.route for recording, _ in mine],
                [recording.language for recording, _ in mine],
                options,
                [len(waves[row]) / SAMPLE_RATE for row in rows],
            )
            for (recording, index), hypothesis in zip(mine, hypotheses, strict=True):
                recording.found[index] = hypothesis
        if progress:
            progress(sum(map(len, waves)) / SAMPLE_RATE)
    for recording in recordings:
        yield recording.transcript()


def _searches(
    model: SpeechModel, batch: Sequence[tuple[_Recording, int]]
) -> dict[Callable[..., list[Hypothesis]], list[int]]:
    """How to decode, and the rows of a batch for which to do so."""
    rows: dict[Callable[..., list[Hypothesis]], list[int]] = {}
    for row, (recording, _) in enumerate(batch):
        whisper = isinstance(model.backbone, WhisperBackbone)
        own = decode if whisper and model.head(recording.route) is None else decode_ctc
        rows.setdefault(own, []).append(row)
    return rows


def _batches(
    cuts: Sequence[tuple[_Recording, int]], trailing_silence: float | None, batch_seconds: float
) -> Iterator[list[tuple[_Recording, int]]]:
    """Cuts of similar length together; a batch costs its longest times its number."""
    batch: list[tuple[_Recording, int]] = []
    for recording, index in sorted(cuts, key=lambda cut: _samples(*cut)):
        if trailing_silence is None:
            cost = _FULL_SECONDS
        else:
            seconds = _samples(recording, index) / SAMPLE_RATE + trailing_silence
            cost = min(_FULL_SECONDS, seconds)
        if batch and cost * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append((recording, index))
    if batch:
        yield batch


def _samples(recording: _Recording, index: int) -> int:
    start, end = recording.spans[index]
    return end - start


def _cut(recording: _Recording, index: int) -> np.ndarray:
    start, end = recording.spans[index]
    return recording.samples[start:end]


def _detects(model: SpeechModel) -> bool:
    generation = getattr(model.backbone, "generation", None)
    return bool(getattr(generation, "lang_to_id", None))
