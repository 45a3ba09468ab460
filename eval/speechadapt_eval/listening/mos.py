"""Mean opinion scores: of systems, of single sounds, and the differences of systems."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit
from scipy.stats import wilcoxon

from speechadapt_eval.listening.ratings import Rating, ordered
from speechadapt_eval.statistics.bootstrap import Interval
from speechadapt_eval.statistics.crossed import (
    Table,
    crossed_difference,
    crossed_mean,
    tabulate,
)
from speechadapt_eval.statistics.multiple import holm

_Ends = tuple[float, float]


@dataclass(frozen=True)
class SystemMos:
    """The mean opinion score of a system.

    Attributes:
        system: Its name.
        kind: ``test``, ``anchor`` or ``ref``.
        mos: Mean of all ratings.
        interval: For other raters and other clips (crossed bootstrap).
        naive: ``mos ± 1.96 s / sqrt(n)`` over ratings, as P.808 reports it: much too narrow.
        student: t over the raters' means: for other raters, these clips.
        ratings: How many.
        raters: How many.
        clips: How many.
    """

    system: str
    kind: str
    mos: float
    interval: Interval
    naive: _Ends
    student: _Ends
    ratings: int
    raters: int
    clips: int


@dataclass(frozen=True)
class ClipMos:
    """The mean opinion score of one sound; here only raters vary, so there is nothing to cross.

    Attributes:
        system: What made it.
        clip: What is said.
        mos: Mean of all ratings.
        student: t over the raters' means; NaN below two raters.
        naive: ``mos ± 1.96 s / sqrt(n)``.
        ratings: How many.
        raters: How many.
    """

    system: str
    clip: str
    mos: float
    student: _Ends
    naive: _Ends
    ratings: int
    raters: int


@dataclass(frozen=True)
class MosPair:
    """The difference B − A of two systems' scores; positive: B is better.

    Attributes:
        a: One system.
        b: The other.
        delta: Difference of the mean opinion scores.
        interval: Crossed bootstrap, the same raters and clips drawn for both systems.
        clips: Clips that were rated for both.
        p: Wilcoxon's signed-rank test over the differences of these clips' means, two-sided; 1
            where none differs, NaN without a clip.
        p_holm: Corrected for all pairs.
    """

    a: str
    b: str
    delta: float
    interval: Interval
    clips: int
    p: float
    p_holm: float


def system_mos(
    ratings: Sequence[Rating], *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> list[SystemMos]:
    """Mean opinion scores, best first.

    Args:
        ratings: Of raters that passed the screening, without gold clips and traps.
        samples: Bootstrap replicates.
        seed: Of the resampling. The order of the ratings has no influence.
        level: Nominal coverage.

    Raises:
        EvalError: A setting is out of range.
    """
    found = []
    tables = _tables(ratings)
    for system, given in _grouped(ratings).items():
        scores = [r.score for r in given]
        interval = crossed_mean(tables[system], samples=samples, seed=seed, level=level)
        found.append(
            SystemMos(
                system=system,
                kind=given[0].kind,
                mos=tables[system].mean,
                interval=interval,
                naive=_naive(scores, level),
                student=_student(given, level),
                ratings=len(given),
                raters=len({r.rater for r in given}),
                clips=len({r.clip for r in given}),
            )
        )
    return sorted(found, key=lambda mos: (-mos.mos, mos.system))


def clip_mos(ratings: Sequence[Rating], *, level: float = 0.95) -> list[ClipMos]:
    """Mean opinion scores of the sounds, by system and clip.

    Args:
        ratings: As ``system_mos``.
        level: Nominal coverage.
    """
    found = []
    for system, given in _grouped(ratings).items():
        by_clip: dict[str, list[Rating]] = defaultdict(list)
        for rating in given:
            by_clip[rating.clip].append(rating)
        for clip, heard in sorted(by_clip.items()):
            scores = [r.score for r in heard]
            found.append(
                ClipMos(
                    system=system,
                    clip=clip,
                    mos=float(np.mean(scores)),
                    student=_student(heard, level),
                    naive=_naive(scores, level),
                    ratings=len(heard),
                    raters=len({r.rater for r in heard}),
                )
            )
    return found


def mos_pairs(
    ratings: Sequence[Rating], *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> list[MosPair]:
    """Compare each system under test with each other; anchors and references are left out.

    Args:
        ratings: As ``system_mos``.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage.

    Raises:
        EvalError: A setting is out of range.
    """
    tables = _tables(ratings)
    tested = sorted({r.system for r in ratings if r.kind == "test"})
    pairs = list(itertools.combinations(tested, 2))
    tests = [_wilcoxon(tables[a], tables[b]) for a, b in pairs]
    return [
        MosPair(
            a=a,
            b=b,
            delta=tables[b].mean - tables[a].mean,
            interval=crossed_difference(
                tables[b], tables[a], samples=samples, seed=seed, level=level
            ),
            clips=clips,
            p=p,
            p_holm=corrected,
        )
        for (a, b), (clips, p), corrected in zip(
            pairs, tests, holm([p for _, p in tests]), strict=True
        )
    ]


def _grouped(ratings: Sequence[Rating]) -> dict[str, list[Rating]]:
    systems: dict[str, list[Rating]] = defaultdict(list)
    for rating in ordered(ratings):
        systems[rating.system].append(rating)
    return dict(sorted(systems.items()))


def _tables(ratings: Sequence[Rating]) -> dict[str, Table]:
    """Ratings of each system over the raters and clips of the whole test."""
    raters = sorted({r.rater for r in ratings})
    clips = sorted({r.clip for r in ratings})
    return {
        system: tabulate(
            [r.score for r in given],
            [r.rater for r in given],
            [r.clip for r in given],
            all_raters=raters,
            all_clips=clips,
        )
        for system, given in _grouped(ratings).items()
    }


def _naive(scores: Sequence[float], level: float) -> _Ends:
    if len(scores) < 2:
        return math.nan, math.nan
    reach = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(scores, ddof=1))
    mean = float(np.mean(scores))
    return mean - reach / math.sqrt(len(scores)), mean + reach / math.sqrt(len(scores))


def _student(given: Sequence[Rating], level: float) -> _Ends:
    by_rater: dict[str, list[float]] = defaultdict(list)
    for rating in given:
        by_rater[rating.rater].append(rating.score)
    means = [float(np.mean(scores)) for scores in by_rater.values()]
    if len(means) < 2:
        return math.nan, math.nan
    count, mean = len(means), float(np.mean(means))
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * float(np.std(means, ddof=1))
    return mean - reach / math.sqrt(count), mean + reach / math.sqrt(count)


def _wilcoxon(a: Table, b: Table) -> tuple[int, float]:
    """How many clips both have, and p."""
    counts_a, counts_b = a.counts.sum(axis=0), b.counts.sum(axis=0)
    both = (counts_a > 0) & (counts_b > 0)
    gain = b.sums.sum(axis=0)[both] / counts_b[both] - a.sums.sum(axis=0)[both] / counts_a[both]
    gain = gain.round(9)  # means of the same ratings in another order tie
    clips = int(both.sum())
    if not clips:
        return 0, math.nan
    return clips, float(wilcoxon(gain).pvalue) if gain.any() else 1.0
