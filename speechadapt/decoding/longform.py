"""Long recordings: windows that fit Whisper, cut where nobody speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from speechadapt.audio import SAMPLE_RATE
from speechadapt.decoding.search import Hypothesis
from speechadapt.decoding.timestamps import Word
from speechadapt.decoding.tokens import WITHOUT_SPACES, Segment
from speechadapt.decoding.vad import FRAME, VoiceActivity

WINDOW_SECONDS = 28.0  # leaves 2 s of Whisper's 30 for trailing silence
_SPEECH = 0.5  # a frame at or above it opens a region of speech
_NO_SPEECH = 0.35  # frames below it close the region
_PAUSE = 0.5  # seconds that must be silent for a region to end
_MARGIN = 0.2  # seconds kept on both sides: soft consonants are silent to a detector
_GAP = 3.0  # seconds of silence that no window bridges: Whisper invents words there

Timed = TypeVar("Timed", Segment, Word)
Span = tuple[int, int]
"""First sample and the sample after the last."""


def windows(
    samples: np.ndarray, vad: VoiceActivity | None, limit: float = WINDOW_SECONDS
) -> list[Span]:
    """Cut a recording into windows to decode one by one.

    A recording that fits is one window and no detector sees it, so that none can swallow a short
    utterance. In a longer one, regions of speech are joined while they fit; a region that does not
    fit alone is cut where speech is least probable. A recording without speech has no window.

    Args:
        samples: Mono at 16 kHz.
        vad: Detects speech; None only where the recording is known to fit.
        limit: Longest window in seconds.
    """
    if len(samples) <= limit * SAMPLE_RATE:
        return [(0, len(samples))]
    if vad is None:
        raise ValueError("a long recording needs a voice activity detector")
    probabilities = vad(samples)
    longest = math.floor(limit * SAMPLE_RATE / FRAME)
    pieces = [
        piece
        for region in speech_regions(probabilities)
        for piece in _split(region, probabilities, longest)
    ]
    joined: list[Span] = []
    for start, end in pieces:
        if joined:
            first, last = joined[-1]
            if end - first <= longest and (start - last) * FRAME <= _GAP * SAMPLE_RATE:
                joined[-1] = (first, end)
                continue
        joined.append((start, end))
    return [(start * FRAME, min(len(samples), end * FRAME)) for start, end in joined]


def speech_regions(probabilities: np.ndarray) -> list[Span]:
    """Stretches of speech in frames, margins included, apart from each other.

    Args:
        probabilities: Of speech, one for each frame of 512 samples.
    """
    pause = round(_PAUSE * SAMPLE_RATE / FRAME)
    margin = round(_MARGIN * SAMPLE_RATE / FRAME)
    regions: list[Span] = []
    start: int | None = None
    last = 0  # frame after the last that was not silent
    for frame, probability in enumerate(probabilities.tolist()):
        if start is None:
            if probability >= _SPEECH:
                start, last = frame, frame + 1
        elif probability >= _NO_SPEECH:
            last = frame + 1
        elif frame + 1 - last >= pause:
            regions.append((start, last))
            start = None
    if start is not None:
        regions.append((start, last))
    count = len(probabilities)
    # Margins cannot meet: half a second lies between two regions.
    return [(max(0, start - margin), min(count, end + margin)) for start, end in regions]


def _split(region: Span, probabilities: np.ndarray, longest: int) -> list[Span]:
    """Cut a region that is too long, each time in the second half of what still fits."""
    start, end = region
    smooth = np.convolve(np.pad(probabilities, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    pieces = []
    while end - start > longest:
        begin = start + max(1, longest // 2)
        cut = begin + int(np.argmin(smooth[begin : start + longest + 1]))
        pieces.append((start, cut))
        start = cut
    pieces.append((start, end))
    return pieces


def join(spans: Sequence[Span], hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """One hypothesis of a whole recording from those of its windows.

    Times are shifted to the recording's own. Of the figures the worst is kept, the log-probability
    is that of all tokens; the language is that of the first window that has text.

    Args:
        spans: What :func:`windows` gave.
        hypotheses: One for each window.

    Returns:
        Silence where there is no window.
    """
    if not hypotheses:
        return Hypothesis.silence()
    if len(hypotheses) == 1 and spans[0][0] == 0:
        return hypotheses[0]
    spoken = [h for h in hypotheses if h.text] or list(hypotheses[:1])
    segments: list[Segment] = []
    words: list[Word] = []
    for (first, _), hypothesis in zip(spans, hypotheses, strict=True):
        offset = first / SAMPLE_RATE
        segments += [_shifted(item, offset) for item in hypothesis.segments]
        words += [_shifted(item, offset) for item in hypothesis.words]
    separator = "" if spoken[0].language in WITHOUT_SPACES else " "
    counts = [len(h.tokens) + 1 for h in spoken]
    logprob = sum(n * h.avg_logprob for n, h in zip(counts, spoken, strict=True)) / sum(counts)
    return replace(
        spoken[0],
        text=separator.join(h.text for h in spoken if h.text),
        tokens=tuple(token for h in spoken for token in h.tokens),
        avg_logprob=logprob,
        no_speech_prob=max(h.no_speech_prob for h in spoken),
        compression_ratio=max(h.compression_ratio for h in spoken),
        temperature=max(h.temperature for h in spoken),
        segments=tuple(segments),
        words=tuple(words),
    )


def _shifted(item: Timed, offset: float) -> Timed:
    return replace(item, start=round(item.start + offset, 2), end=round(item.end + offset, 2))
