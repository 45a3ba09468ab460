"""Confidence intervals of listening tests, where both raters and clips are samples.

Two ratings share a rater, a clip, or neither; an interval that takes them as independent is far
too narrow (simulated with 12 raters and 20 clips, "95 %" covered the truth half of the time). The
crossed bootstrap resamples raters and clips, each with replacement, and keeps every rating of a
drawn rater for a drawn clip as often as both were drawn. Cells may be missing or hold several
ratings. Method: Owen, "The Pigeonhole Bootstrap", Annals of Applied Statistics 2007.

That bootstrap counts what belongs to single ratings about three times, as Owen shows, which makes
differences of systems far too uncertain, and it knows nothing of t. So its replicates are stretched
about the estimate to the two-way clustered standard error (Cameron, Gelbach and Miller, "Robust
Inference with Multiway Clustering", Journal of Business & Economic Statistics 2011) times what t
exceeds the normal quantile. ``eval/bench/interval_coverage.py`` simulates it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit

from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import Interval

_CELLS = 4_000_000  # weights drawn at a time: 32 MB


@dataclass(frozen=True)
class Table:
    """Ratings of one system, added up by rater and clip.

    Attributes:
        sums: Sum of the ratings in each cell, ``[raters, clips]``.
        counts: How many there are, ``[raters, clips]``; 0 where a cell is missing.
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Of all ratings; NaN where there is none."""
        total = self.counts.sum()
        return float(self.sums.sum() / total) if total else math.nan


def tabulate(
    scores: Sequence[float], raters: Sequence[str], clips: Sequence[str],
    *, all_raters: Sequence[str], all_clips: Sequence[str],
) -> Table:  # fmt: skip
    """Add up ratings by rater and clip.

    Args:
        scores: ``[ratings]``.
        raters: Who gave each, ``[ratings]``.
        clips: To what, ``[ratings]``.
        all_raters: The rows. Tables of systems that are compared must have the same.
        all_clips: The columns, likewise.
    """
    row = {name: index for index, name in enumerate(all_raters)}
    column = {name: index for index, name in enumerate(all_clips)}
    table = Table(np.zeros((len(row), len(column))), np.zeros((len(row), len(column))))
    where = [row[name] for name in raters], [column[name] for name in clips]
    np.add.at(table.sums, where, scores)
    np.add.at(table.counts, where, 1)
    return table


def crossed_mean(
    table: Table, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The interval of a mean rating, for other raters and other clips.

    Args:
        table: Ratings of a system.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage.

    Returns:
        The interval; NaN, with a note, below two raters or two clips that have ratings.

    Raises:
        EvalError: A setting is out of range.
    """
    return crossed_difference(table, None, samples=samples, seed=seed, level=level)


def crossed_difference(
    b: Table, a: Table | None, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The interval of the difference of two mean ratings, B − A, raters and clips drawn for both.

    Args:
        b: Ratings of the system of interest.
        a: Those of the other, with the same rows and columns; None stands for a constant 0.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage.

    Returns:
        As ``crossed_mean``.

    Raises:
        EvalError: The tables have other rows or columns, or a setting is out of range.
    """
    if samples < 1 or not 0 < level < 1:
        raise EvalError(
            f"{samples} bootstrap samples at level {level} give no interval: use at least 1000, "
            "and a level between 0 and 1"
        )
    tables = [table for table in (b, a) if table is not None]
    if len({table.sums.shape for table in tables}) > 1:
        raise EvalError("the two systems' ratings are not tabulated over the same raters and clips")
    heard = np.sum([table.counts for table in tables], axis=0) > 0
    raters, clips = heard.any(axis=1), heard.any(axis=0)
    tables = [Table(t.sums[raters][:, clips], t.counts[raters][:, clips]) for t in tables]
    n_raters, n_clips = int(raters.sum()), int(clips.sum())
    units = min(n_raters, n_clips)
    if units < 2:
        what = "rater" if n_raters <= n_clips else "clip"
        note = f"fewer than two {what}s: no interval can be given"
        return Interval(math.nan, math.nan, level, "none", units, note)
    means = [_replicates(table, samples, seed) for table in tables]
    drawn = means[0] if a is None else means[0] - means[1]
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        note = "no rater that was drawn rated a clip that was: too few ratings for an interval"
        return Interval(math.nan, math.nan, level, "none", units, note)
    estimate = tables[0].mean - (0.0 if a is None else tables[1].mean)
    influence = _influence(tables[0]) - (0.0 if a is None else _influence(tables[1]))
    stretch = _reach(influence, level) / _normal_reach(drawn, level)
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    low, high = estimate + stretch * (ends - estimate)
    method = f"crossed bootstrap over {n_raters} raters and {n_clips} clips"
    return Interval(float(low), float(high), level, method, units)


def _influence(table: Table) -> np.ndarray:
    """What each cell adds to the mean's error, ``[raters, clips]``."""
    return (table.sums - table.mean * table.counts) / table.counts.sum()


def _reach(influence: np.ndarray, level: float) -> float:
    """Half the width of a t interval with the two-way clustered standard error."""
    n_raters, n_clips = influence.shape
    by_rater = float((influence.sum(axis=1) ** 2).sum()) * n_raters / (n_raters - 1)
    by_clip = float((influence.sum(axis=0) ** 2).sum()) * n_clips / (n_clips - 1)
    both = float((influence**2).sum())  # is in each of the two
    variance = max(by_rater + by_clip - both, by_rater, by_clip)
    if not variance:
        return 0.0
    # Satterthwaite's degrees of freedom for a sum of two variances.
    freedom = (by_rater + by_clip) ** 2 / (
        by_rater**2 / (n_raters - 1) + by_clip**2 / (n_clips - 1)
    )
    return float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)


def _normal_reach(drawn: np.ndarray, level: float) -> float:
    """Half the width of a normal interval with the spread of the replicates; 1 without any."""
    return NormalDist().inv_cdf((1 + level) / 2) * float(drawn.std()) or 1.0


def _replicates(table: Table, samples: int, seed: int) -> np.ndarray:
    """Means ``[samples]``; the same seed draws the same raters and clips for every table."""
    n_raters, n_clips = table.sums.shape
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // (n_raters + n_clips))
    means = []
    for done in range(0, samples, step):
        size = min(step, samples - done)
        by_rater = rng.multinomial(n_raters, np.full(n_raters, 1 / n_raters), size=size)
        by_clip = rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=size)
        sums = np.einsum("sc,sc->s", by_rater @ table.sums, by_clip)
        counts = np.einsum("sc,sc->s", by_rater @ table.counts, by_clip)
        with np.errstate(invalid="ignore"):  # nothing was rated by whom was drawn: NaN
            means.append(sums / counts)
    return np.concatenate(means)
