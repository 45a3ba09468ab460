"""Predicted MOS of recordings: a row for each, with scores or with the reason why not.

A predicted MOS falls with the length of a clip, and silence and noise get plausible ones. So
clips below a minimum length, silent ones and those beyond full scale get no score, and means are
taken over the rest only, beside how many were left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from speechadapt_eval.audio.dnsmos import WINDOW_S, Dnsmos
from speechadapt_eval.audio.sources import (
    RATE,
    SILENCE_DB,
    Audio,
    Source,
    Unscorable,
    is_silent,
    read_audio,
)
from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import Interval
from speechadapt_eval.statistics.resample import bootstrap

MIN_SECONDS = 4.0
DNSMOS = ("sig", "bak", "ovrl", "p808")
SCALES = (*DNSMOS, "distillmos")


@dataclass(frozen=True)
class Mos:
    """Predicted opinions of one recording, 1 to 5; NaN where ``reason`` says why.

    Attributes:
        id: Of the source.
        group: Of the source.
        audio: Path of the file.
        seconds: Length; NaN if it could not be read.
        rate: Of the file, samples a second; 0 if it could not be read.
        sig: Quality of the speech (DNSMOS P.835).
        bak: How little the background disturbs (DNSMOS P.835).
        ovrl: Overall (DNSMOS P.835).
        p808: Overall (DNSMOS P.808).
        distillmos: Overall (DistillMOS); NaN if it was not asked for.
        windows: Windows that DNSMOS averaged; a clip shorter than one is repeated to fill it.
        window_s: Length of a window, seconds.
        clipped: Share of samples at full scale.
        reason: Why there is no score; empty if there is one.
    """

    id: str
    group: str
    audio: str
    seconds: float = math.nan
    rate: int = 0
    sig: float = math.nan
    bak: float = math.nan
    ovrl: float = math.nan
    p808: float = math.nan
    distillmos: float = math.nan
    windows: int = 0
    window_s: float = WINDOW_S
    clipped: float = math.nan
    reason: str = ""


COLUMNS = tuple(field.name for field in fields(Mos))


@dataclass(frozen=True)
class MosSummary:
    """Means of a group over the recordings that have scores; NaN if none has.

    Attributes:
        group: Which.
        files: How many recordings it has.
        scored: How many of them have scores.
        excluded: How many have none, by kind of reason.
        means: Of each of ``SCALES``.
        interval: Of the mean ``ovrl``, by resampling recordings.
        shortest: Seconds of the shortest scored recording.
        longest: Seconds of the longest.
    """

    group: str
    files: int
    scored: int
    excluded: dict[str, int]
    means: dict[str, float]
    interval: Interval
    shortest: float
    longest: float


def predict_mos(
    sources: Iterable[Source],
    dnsmos: Dnsmos,
    *,
    min_seconds: float = MIN_SECONDS,
    resample: bool = True,
    distillmos: Callable[[np.ndarray], float] | None = None,
) -> Iterator[Mos]:
    """Score recordings with DNSMOS, and with DistillMOS if it is given.

    Args:
        sources: From ``find_sources``.
        dnsmos: The networks.
        min_seconds: Shorter recordings get no score.
        resample: Bring other rates to 16 kHz; otherwise they get no score.
        distillmos: A ``Distillmos``.

    Yields:
        A row for each source, in their order.

    Raises:
        EvalError: ``min_seconds`` is not above 0.
    """
    if not min_seconds > 0:
        raise EvalError(f"minimum length {min_seconds} s: give a length above 0, as 4")
    for source in sources:
        row = Mos(source.id, source.group, str(source.path))
        try:
            audio = read_audio(source)
        except Unscorable as error:
            yield replace(row, reason=str(error))
            continue
        row = replace(row, seconds=audio.seconds, rate=audio.rate, clipped=audio.clipped)
        if reason := _unfit(audio, min_seconds, resample):
            yield replace(row, reason=reason)
            continue
        samples = audio.at_16_khz()
        second = math.nan if distillmos is None else distillmos(samples)
        yield replace(row, **asdict(dnsmos(samples)), distillmos=second)


def summarise(rows: Sequence[Mos], *, samples: int = 1000, seed: int = 0) -> list[MosSummary]:
    """Sum groups up, in the order in which they occur."""
    groups: dict[str, list[Mos]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [_summary(name, members, samples, seed) for name, members in groups.items()]


def _unfit(audio: Audio, min_seconds: float, resample: bool) -> str:
    """Why a recording must not be scored, or nothing. What stands before the colon is the kind."""
    if audio.rate != RATE and not resample:
        return f"not 16 kHz: {audio.rate} Hz"
    if audio.seconds < min_seconds:
        return f"too short: {audio.seconds:.2f} s"
    if (peak := np.abs(audio.samples).max()) > 1:
        return f"clipping: samples reach {peak:.2f}, full scale is 1"
    if is_silent(audio.samples):
        return f"silent: less than 5 % is louder than {SILENCE_DB:g} dBFS"
    return ""


def _summary(name: str, rows: list[Mos], samples: int, seed: int) -> MosSummary:
    scored = [row for row in rows if not row.reason]
    excluded = Counter(row.reason.partition(":")[0] for row in rows if row.reason)
    nan = math.nan
    if not scored:
        nothing = Interval(nan, nan, 0.95, "none", 0, "no recording has a score")
        means = dict.fromkeys(SCALES, nan)
        return MosSummary(name, len(rows), 0, dict(excluded), means, nothing, nan, nan)
    values = np.array([row.ovrl for row in scored])
    (interval,) = bootstrap(
        lambda weights: (weights @ values / weights.sum(axis=1))[:, None],
        len(values),
        samples=samples,
        seed=seed,
        noun="recordings",
    )
    return MosSummary(
        name,
        len(rows),
        len(scored),
        dict(excluded),
        {scale: float(np.mean([getattr(row, scale) for row in scored])) for scale in SCALES},
        interval,
        min(row.seconds for row in scored),
        max(row.seconds for row in scored),
    )
