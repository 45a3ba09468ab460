"""Latency and stability of streams.

A word counts as emitted at the event from which on it and all words before it stay as they are
in the final text. Its delay is the audio given by then (computation not counted) or the wall
clock then (computation-aware), both in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from speechadapt_eval.errors import EvalError
from speechadapt_eval.speed.events import Stream
from speechadapt_eval.speed.timing import percentiles
from speechadapt_eval.transcripts.wer import align

Words = Callable[[str], list[str]]
PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True)
class Lag:
    """Latency of one text, by one clock; seconds, NaN where there is no word.

    Attributes:
        al: Average Lagging.
        laal: Length-Adaptive Average Lagging.
        words: What each word lags behind an even pace of speech, ``[words]``: the terms of LAAL,
            of all words.
    """

    al: float
    laal: float
    words: tuple[float, ...]


@dataclass(frozen=True)
class StreamLatency:
    """Latency of one utterance; times in seconds, NaN where the text is empty.

    Attributes:
        id: Of the utterance.
        seconds: Length of its audio.
        partials: Events before the final one.
        words: The final text.
        emitted: Index of the event that emitted each, ``[words]``.
        n_ref: Words of the reference.
        first_partial: Wall clock at the first event that shows a word.
        finalisation: From the end of the audio to the final event.
        audio: Lag by the audio given: what the policy waits for.
        wall: Lag by the wall clock: waiting and computation.
        after_word: From the end of a spoken word to its emission by the wall clock, of each final
            word that stands for a spoken one; empty where nobody says when words were spoken.
        unstable_words: Words shown and taken back, counted at each event.
        unstable_partials: Partials of which the next event takes a word back.
        compute: Seconds of computation before each event, ``[events]``.
        steps: Seconds of audio between events that had been given more, ``[steps]``.
    """

    id: str
    seconds: float
    partials: int
    words: tuple[str, ...]
    emitted: tuple[int, ...]
    n_ref: int
    first_partial: float
    finalisation: float
    audio: Lag
    wall: Lag
    after_word: tuple[float, ...]
    unstable_words: int
    unstable_partials: int
    compute: tuple[float, ...]
    steps: tuple[float, ...]

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of computation per second of audio."""
        return math.fsum(self.compute) / self.seconds


@dataclass(frozen=True)
class Part:
    """A segment of a recording with its reference, for StreamLAAL.

    Attributes:
        start: Seconds from the beginning of the recording.
        seconds: Length.
        ref: Words.
    """

    start: float
    seconds: float
    ref: tuple[str, ...]


@dataclass(frozen=True)
class StreamLAAL:
    """StreamLAAL of recordings; seconds.

    Attributes:
        audio: By the audio given.
        wall: By the wall clock.
        segments: How many segments have words and count.
        empty: How many got no word and do not count.
    """

    audio: float
    wall: float
    segments: int
    empty: int


def lag(delays: Sequence[float], seconds: float, n_ref: int) -> Lag:
    """Average Lagging and Length-Adaptive Average Lagging, as SimulEval and OmniSTEval do.

    Sources: Ma et al. 2019 (arXiv:1810.08398), Papi et al. 2022 (arXiv:2206.05807).

    With delays d, audio length X and n reference words: the mean over i = 1 … τ of
    ``d[i] − (i − 1) · X / n``, where τ is the first word with ``d ≥ X`` (the last, if there is
    none), and ``d[1]`` alone if that is beyond X. LAAL takes the longer of reference and
    hypothesis as n.

    Args:
        delays: Of each word, in seconds, not falling, ``[words]``.
        seconds: X.
        n_ref: Words of the reference; 0 makes AL NaN.
    """
    if not delays:
        return Lag(math.nan, math.nan, ())
    pace = seconds / max(n_ref, len(delays))
    terms = tuple(delay - i * pace for i, delay in enumerate(delays))
    if delays[0] > seconds:
        return Lag(delays[0], delays[0], terms)
    tau = next((i for i, delay in enumerate(delays, 1) if delay >= seconds), len(delays))
    al = math.nan
    if n_ref:
        al = fmean(delay - i * seconds / n_ref for i, delay in enumerate(delays[:tau]))
    return Lag(al, fmean(terms[:tau]), terms)


def emissions(texts: Sequence[Sequence[str]]) -> list[int]:
    """Index of the event that emitted each word of the final text, ``[words]``.

    Args:
        texts: Words shown by each event, the final one last, ``[events][words]``.
    """
    final = texts[-1]
    stable = len(final)
    emitted = [0] * stable
    for index in range(len(texts) - 1, -1, -1):
        stable = min(stable, common(texts[index], final))
        emitted[:stable] = [index] * stable
    return emitted


def measure(
    stream: Stream,
    ref: Sequence[str],
    words: Words,
    spoken: Sequence[tuple[str, float]] = (),
) -> StreamLatency:
    """Latency and stability of one utterance.

    Args:
        stream: The events.
        ref: Words of the reference.
        words: What makes words of a text; the same that made those of the reference.
        spoken: Reference words and where each ends, in seconds, if that is known.
    """
    events = stream.events
    texts = [words(event.text) for event in events]
    emitted = emissions(texts)
    shown = next((event.wall for event, text in zip(events, texts, strict=True) if text), math.nan)
    lost = [len(old) - common(old, new) for old, new in pairwise(texts)]
    arrived = [0.0, *(event.wall for event in events)]
    given = sorted({0.0, *(event.audio for event in events)})
    return StreamLatency(
        id=stream.id,
        seconds=stream.seconds,
        partials=len(events) - 1,
        words=tuple(texts[-1]),
        emitted=tuple(emitted),
        n_ref=len(ref),
        first_partial=shown,
        finalisation=events[-1].wall - stream.seconds,
        audio=lag([events[i].audio for i in emitted], stream.seconds, len(ref)),
        wall=lag([events[i].wall for i in emitted], stream.seconds, len(ref)),
        after_word=tuple(
            events[emitted[heard]].wall - spoken[said][1]
            for said, heard in _pairs([word for word, _ in spoken], texts[-1])
            if said is not None and heard is not None
        ),
        unstable_words=sum(lost),
        unstable_partials=sum(count > 0 for count in lost),
        compute=tuple(
            max(0.0, event.wall - max(event.audio, before))
            for event, before in zip(events, arrived, strict=False)
        ),
        steps=tuple(new - old for old, new in pairwise(given)),
    )


def stream_laal(
    streams: Sequence[Stream],
    measured: Sequence[StreamLatency],
    parts: Sequence[Sequence[Part]],
) -> StreamLAAL:
    """StreamLAAL (Papi et al. 2024, "StreamAtt"): LAAL of the segments of long recordings.

    The words of a recording are dealt out to its segments by the alignment with the fewest
    errors; delays count from the start of their segment; the result is the mean over segments.
    A word without a counterpart goes with the word before it.

    Args:
        streams: One for each recording.
        measured: What ``measure`` made of each.
        parts: Of each recording, in time order, ``[recordings][segments]``.

    Raises:
        EvalError: No segment has a word.
    """
    by_audio: list[float] = []
    by_wall: list[float] = []
    empty = 0
    for stream, one, those in zip(streams, measured, parts, strict=True):
        emitted = [stream.events[i] for i in one.emitted]
        start = 0
        for part, count in zip(those, _deal(one.words, those), strict=True):
            mine = emitted[start : start + count]
            start += count
            if not mine:
                empty += 1
                continue
            for clock, into in (("audio", by_audio), ("wall", by_wall)):
                delays = [getattr(event, clock) - part.start for event in mine]
                into.append(lag(delays, part.seconds, len(part.ref)).laal)
    if not by_audio:
        raise EvalError(
            f"no word was found for any of {empty} segments: StreamLAAL can not be given; check "
            "that the events and the segments are of the same recordings"
        )
    return StreamLAAL(fmean(by_audio), fmean(by_wall), len(by_audio), empty)


@dataclass(frozen=True)
class Summary:
    """Latency of a set; seconds. Percentiles are given as [p50, p90, p95, p99].

    Attributes:
        utterances: How many.
        empty: How many have an empty final text, and so no delay.
        partials: Events before the final ones; 0 says that nothing was streamed.
        audio_seconds: Length of all audio.
        rtf: Real-time factor: Σ computation / Σ audio.
        first_partial: Percentiles over utterances.
        finalisation: Percentiles over utterances.
        word_delay: Percentiles over words of the lag behind an even pace, by the wall clock.
        word_delay_audio: The same by the audio given.
        after_word: Percentiles over words, from the end of the spoken word to its emission by
            the wall clock; NaN where nobody says when words were spoken.
        laal: Mean over utterances, by the audio given.
        laal_ca: The same by the wall clock (computation-aware).
        al: Average Lagging by the audio given, for comparison.
        al_ca: The same by the wall clock.
        unstable_words: Words taken back per final word (normalised erasure).
        unstable_partials: Share of the partials of which a word was taken back.
        compute_p99: 99th percentile of the computation before an event.
        chunk: Median step of the audio; computation above it falls behind.
    """

    utterances: int
    empty: int
    partials: int
    audio_seconds: float
    rtf: float
    first_partial: list[float]
    finalisation: list[float]
    word_delay: list[float]
    word_delay_audio: list[float]
    after_word: list[float]
    laal: float
    laal_ca: float
    al: float
    al_ca: float
    unstable_words: float
    unstable_partials: float
    compute_p99: float
    chunk: float


def summarize(measured: Sequence[StreamLatency]) -> Summary:
    """Pool utterances; those with an empty text have no delay and are left out of the means."""
    spoken = [one for one in measured if one.words]
    audio = math.fsum(one.seconds for one in measured)
    compute = [seconds for one in measured for seconds in one.compute]
    steps = [step for one in measured for step in one.steps]
    return Summary(
        utterances=len(measured),
        empty=len(measured) - len(spoken),
        partials=sum(one.partials for one in measured),
        audio_seconds=audio,
        rtf=math.fsum(compute) / audio if audio else math.nan,
        first_partial=_percentiles([one.first_partial for one in measured]),
        finalisation=_percentiles([one.finalisation for one in measured]),
        word_delay=_percentiles([term for one in spoken for term in one.wall.words]),
        word_delay_audio=_percentiles([term for one in spoken for term in one.audio.words]),
        after_word=_percentiles([delay for one in spoken for delay in one.after_word]),
        laal=_mean([one.audio.laal for one in spoken]),
        laal_ca=_mean([one.wall.laal for one in spoken]),
        al=_mean([one.audio.al for one in spoken]),
        al_ca=_mean([one.wall.al for one in spoken]),
        unstable_words=_share(
            sum(one.unstable_words for one in measured), sum(len(one.words) for one in measured)
        ),
        unstable_partials=_share(
            sum(one.unstable_partials for one in measured), sum(one.partials for one in measured)
        ),
        compute_p99=percentiles(compute, [99])[0],
        chunk=median(steps) if steps else math.nan,
    )


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _deal(hyp: Sequence[str], parts: Sequence[Part]) -> list[int]:
    """How many words of ``hyp`` each segment gets, ``[segments]``."""
    owner = [index for index, part in enumerate(parts) for _ in part.ref]
    counts = [0] * len(parts)
    last = 0  # the reference word aligned last
    for said, heard in _pairs([word for part in parts for word in part.ref], hyp):
        last = last if said is None else said
        if heard is not None:
            counts[owner[last] if owner else 0] += 1
    return counts


def _pairs(ref: Sequence[str], hyp: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Positions of reference and hypothesis words that stand for each other; None for none."""
    numbers: dict[str, str] = {}  # words may hold spaces, numbers do not
    texts = [
        " ".join(numbers.setdefault(word, str(len(numbers))) for word in words)
        for words in (ref, hyp)
    ]
    said = heard = 0
    for op in align(*texts):
        if op.kind == "insert":
            yield None, heard
        elif op.kind == "delete":
            yield said, None
        else:
            yield said, heard
        said += op.kind != "insert"
        heard += op.kind != "delete"


def _percentiles(values: Sequence[float]) -> list[float]:
    return percentiles([value for value in values if not math.isnan(value)], PERCENTS)


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return fmean(there) if there else math.nan


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
