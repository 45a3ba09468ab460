"""Which raters to trust: the checks of P.808 tests, and MUSHRA's hidden reference.

Rules as in the P.808 toolkit of Naderi and Cutler ("An Open Source Implementation of ITU-T
Recommendation P.808 with Validation", Interspeech 2020) and ITU-R BS.1534-3 section 4.1.2. They
look at a rater's whole work: who fails one of them is left out altogether.

How well a rater can agree with the others depends on how much the sounds differ: with systems of
near quality honest raters correlate at 0.4 with the rest, and a fixed limit of 0.5 threw out half
of them (``eval/bench/interval_coverage.py`` simulates it). So the limit is half of what the median
rater reaches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from speechadapt_eval.listening.ratings import CHECKS, Rating, Scale, ordered

MIN_VARIANCE = 0.1  # on five points; below it a rater pressed one key all the time
AGREEMENT = 0.5  # of the median rater's correlation; below it a rater heard something else
LEAST_MEDIAN = 0.2  # below it the sounds differ too little for anyone to be judged by agreement
REFERENCE_SCORE = 90  # MUSHRA: the hidden reference is to be scored at least so,
REFERENCE_SHARE = 0.15  # in all but this share of the items
_OTHERS = 2  # raters that a sound needs for a mean to correlate with,
_SOUNDS = 5  # and sounds that a correlation needs


@dataclass(frozen=True)
class Rater:
    """What is known of a rater.

    Attributes:
        name: The rater.
        ratings: How many there are, gold clips and traps not counted.
        golds: Gold clips rated.
        golds_missed: Those further from the expected score than the scale allows.
        traps: Traps met.
        traps_missed: Those fallen into.
        mean: Of the ratings; NaN without any.
        variance: Of the ratings (n in the denominator); NaN without any.
        correlation: Pearson's, with the mean of the other raters whose own checks are in order,
            over sounds that at least two of them rated; NaN below five such sounds, or where
            either does not vary.
        references: Hidden references rated.
        references_low: Those scored below 90 (MUSHRA only).
        reasons: Why the rater is left out; empty if not.
    """

    name: str
    ratings: int
    golds: int
    golds_missed: int
    traps: int
    traps_missed: int
    mean: float
    variance: float
    correlation: float
    references: int
    references_low: int
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether the rater's ratings count."""
        return not self.reasons


def screen(ratings: Sequence[Rating], scale: Scale, *, min_ratings: int = 5) -> list[Rater]:
    """Check each rater.

    Args:
        ratings: Of all raters, gold clips and traps among them.
        scale: Of the scores.
        min_ratings: Who rated fewer sounds is left out.

    Returns:
        The raters, sorted by name.
    """
    by_rater: dict[str, list[Rating]] = defaultdict(list)
    for rating in ordered(ratings):
        by_rater[rating.rater].append(rating)
    alone = [_alone(name, given, scale, min_ratings) for name, given in by_rater.items()]
    trusted = {rater.name for rater in alone if rater.kept}
    sums: dict[tuple[str, str], float] = defaultdict(float)
    voices: dict[tuple[str, str], set[str]] = defaultdict(set)
    scores = {name: _by_sound(given) for name, given in by_rater.items()}
    for name in sorted(trusted):
        for sound, score in scores[name].items():
            sums[sound] += score
            voices[sound].add(name)
    correlations = {}
    for name in by_rater:
        pairs = []
        for sound, score in scores[name].items():
            own = name in voices[sound]
            if (others := len(voices[sound]) - own) >= _OTHERS:
                pairs.append((score, (sums[sound] - own * score) / others))
        correlations[name] = _pearson(pairs)
    known = [r for name, r in correlations.items() if name in trusted and not math.isnan(r)]
    median = float(np.median(known)) if known else 0.0
    limit = AGREEMENT * median if median >= LEAST_MEDIAN else -math.inf
    raters = []
    for rater in alone:
        r, reasons = correlations[rater.name], rater.reasons
        if r < limit:
            reasons = (*reasons, f"correlation {r:.2f} with the others, the median is {median:.2f}")
        raters.append(replace(rater, correlation=r, reasons=reasons))
    return raters


def kept(ratings: Sequence[Rating], raters: Sequence[Rater]) -> list[Rating]:
    """The ratings of systems by raters who passed."""
    names = {rater.name for rater in raters if rater.kept}
    return [r for r in ratings if r.rater in names and r.kind not in CHECKS]


def _alone(name: str, given: list[Rating], scale: Scale, min_ratings: int) -> Rater:
    """A rater's checks that need no other rater."""
    missed = {"gold": 0, "trap": 0}
    asked = {"gold": 0, "trap": 0}
    for rating in given:
        if rating.expected is not None:
            allowed = scale.gold if rating.kind == "gold" else scale.trap
            asked[rating.kind] += 1
            missed[rating.kind] += abs(rating.score - rating.expected) > allowed
    scores = np.array([r.score for r in given if r.kind not in CHECKS])
    variance = float(scores.var()) if len(scores) else math.nan
    hidden = [r.score for r in given if r.kind == "ref"] if scale.name == "mushra" else []
    low = sum(score < REFERENCE_SCORE for score in hidden)
    reasons = []
    if missed["trap"]:
        reasons.append(f"{missed['trap']} of {asked['trap']} traps missed")
    if 2 * missed["gold"] > asked["gold"]:
        reasons.append(f"{missed['gold']} of {asked['gold']} gold clips missed")
    if len(scores) < min_ratings:
        reasons.append(f"{len(scores)} ratings, fewer than {min_ratings}")
    if variance < MIN_VARIANCE * scale.unit**2:
        least = MIN_VARIANCE * scale.unit**2
        reasons.append(f"variance {variance:.3g} of the ratings below {least:.3g}")
    if low > REFERENCE_SHARE * len(hidden):
        reasons.append(f"{low} of {len(hidden)} hidden references below {REFERENCE_SCORE}")
    return Rater(
        name=name,
        ratings=len(scores),
        golds=asked["gold"],
        golds_missed=missed["gold"],
        traps=asked["trap"],
        traps_missed=missed["trap"],
        mean=float(scores.mean()) if len(scores) else math.nan,
        variance=variance,
        correlation=math.nan,
        references=len(hidden),
        references_low=low,
        reasons=tuple(reasons),
    )


def _by_sound(given: list[Rating]) -> dict[tuple[str, str], float]:
    """Mean score of each sound (clip and system): a rater may have met it in several sessions."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for rating in given:
        if rating.kind not in CHECKS:
            scores[rating.clip, rating.system].append(rating.score)
    return {sound: sum(values) / len(values) for sound, values in scores.items()}


def _pearson(pairs: list[tuple[float, float]]) -> float:
    if len(pairs) < _SOUNDS:
        return math.nan
    x, y = np.array(pairs).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])
