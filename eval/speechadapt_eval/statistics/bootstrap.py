"""Confidence intervals of error rates and of differences between two systems.

What varies as one must be resampled as one. Words of one speaker err together, so an interval
from single utterances is far too narrow for a claim about other speakers (simulated with ten
speakers, "95 %" covered the truth half of the time). Give the speakers wherever there are several.

From 20 units on an interval is made of bootstrap percentiles, expanded for the narrowness of small
samples (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician
2015, section 3.3). Fewer units have too few distinct resamples, so there it is Student's t with the
standard error of the delete-one-unit jackknife. ``eval/bench/interval_coverage.py`` simulates both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtr, stdtrit

from speechadapt_eval.errors import EvalError
from speechadapt_eval.transcripts.wer import ErrorRate, clusters_of, require_same_utterances

FEW_CLUSTERS = 20
_CELLS = 4_000_000  # multinomial counts drawn at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a rate (a share, not a percentage) or of a mean score.

    Attributes:
        low: Lower end; NaN where no interval can be given, see ``note``.
        high: Upper end.
        level: Nominal coverage.
        method: How it was made, e.g. ``bootstrap over 24 speakers`` or ``t over 8 speakers``.
        n_clusters: How many units it rests on.
        note: What the interval does not say; empty if nothing is to be said.
    """

    low: float
    high: float
    level: float
    method: str
    n_clusters: int
    note: str = ""


@dataclass(frozen=True)
class Paired:
    """The difference B − A of two error rates on the same utterances; negative: B is better.

    Attributes:
        delta: Difference of the corpus rates (a share, not percentage points).
        low: Lower end of its confidence interval.
        high: Upper end.
        p_improvement: Probability that B makes fewer errors than A on other speakers: the share
            of the replicates in which it does (Bisani & Ney 2004), or what the t distribution
            gives where there are few.
        level: Nominal coverage.
        method: How it was made.
        n_clusters: How many units it rests on.
        note: What the interval does not say.
    """

    delta: float
    low: float
    high: float
    p_improvement: float
    level: float
    method: str
    n_clusters: int
    note: str = ""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def non_inferior(self, margin: float) -> bool:
        """Whether B is worse than A by no more than ``margin`` (a share: 0.015 is 1.5 points).

        True if the whole interval lies below the margin; False as well when data are too few.
        """
        return self.high <= margin


def confidence_interval(
    errors: Sequence[int] | np.ndarray,
    n_ref: Sequence[int] | np.ndarray,
    clusters: Sequence[str] | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The confidence interval of a corpus error rate, from counts.

    Args:
        errors: Errors of each utterance, ``[utterances]``.
        n_ref: Reference tokens of each utterance, ``[utterances]``.
        clusters: Speaker or other block of each utterance, ``[utterances]``.
        samples: Bootstrap replicates.
        seed: Of the resampling. The order of the utterances has no influence.
        level: Nominal coverage.

    Returns:
        The interval. Where no utterance has an error (or every token is wrong) all replicates
        are alike, so Wilson's interval over tokens is given instead; where there are fewer than
        two units, NaN.

    Raises:
        EvalError: Lengths differ or a setting is out of range.
    """
    if len(errors) != len(n_ref):
        raise EvalError(
            f"{len(errors)} error counts but {len(n_ref)} reference lengths: give both for each "
            "utterance"
        )
    units, noun, note = _units(np.array([errors, n_ref], dtype=np.int64).T, clusters)
    _check(samples, level)
    total, tokens = int(units[:, 0].sum()), int(units[:, 1].sum())
    if not tokens:
        return Interval(math.nan, math.nan, level, "none", len(units), "no reference token")
    if not total or bool((units[:, 0] == units[:, 1]).all()):
        return _wilson(total, tokens, level, len(units), note)
    if len(units) < 2:
        note = f"one {noun[:-1]} only: no interval can be given"
        return Interval(math.nan, math.nan, level, "none", len(units), note)
    if len(units) < FEW_CLUSTERS:
        low, high, _ = _student(units[:, 0], units[:, 1], level)
        note = _also(note, low, noun)
        low = 0.0 if low < 0 else low  # a rate; NaN stays
        return Interval(low, high, level, f"t over {len(units)} {noun}", len(units), note)
    sums = _resample(units, samples, seed)
    rates = sums[sums[:, 1] > 0]
    low, high = expanded_percentiles(rates[:, 0] / rates[:, 1], level, len(units))
    return Interval(low, high, level, f"bootstrap over {len(units)} {noun}", len(units), note)


def interval_of(
    rate: ErrorRate,
    clusters: Mapping[str, str] | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The confidence interval of a scored corpus.

    Args:
        rate: What ``score`` returned.
        clusters: Utterance id to speaker or other block.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage.

    Raises:
        EvalError: A scored utterance has no cluster, or a setting is out of range.
    """
    return confidence_interval(
        [u.errors for u in rate.utterances],
        [u.n_ref for u in rate.utterances],
        clusters_of(rate, clusters),
        samples=samples,
        seed=seed,
        level=level,
    )


def paired_difference(
    a: ErrorRate,
    b: ErrorRate,
    clusters: Mapping[str, str] | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Paired:
    """The difference of two systems' rates on the same utterances, unit by unit.

    Args:
        a: The system to compare with.
        b: The system of interest.
        clusters: Utterance id to speaker or other block.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage of the two-sided interval.

    Raises:
        EvalError: Ids, references or units of the two differ, or an utterance has no cluster.
    """
    require_same_utterances(a, b)
    _check(samples, level)
    columns = [
        (x.errors, y.errors, x.n_ref) for x, y in zip(a.utterances, b.utterances, strict=True)
    ]
    units, noun, note = _units(np.array(columns, dtype=np.int64), clusters_of(a, clusters))
    delta = b.rate - a.rate
    if len(units) < 2 or not a.n_ref:
        note = f"one {noun[:-1]} only: no interval can be given" if a.n_ref else a.reason
        nan = math.nan
        return Paired(delta, nan, nan, nan, level, "none", len(units), note)
    if len(units) < FEW_CLUSTERS:
        low, high, better = _student(units[:, 1] - units[:, 0], units[:, 2], level)
        method = f"paired t over {len(units)} {noun}"
        note = _also(note, low, noun)
        return Paired(delta, low, high, better, level, method, len(units), note)
    sums = _resample(units, samples, seed)
    better = float((sums[:, 1] < sums[:, 0]).mean())
    sums = sums[sums[:, 2] > 0]
    low, high = expanded_percentiles((sums[:, 1] - sums[:, 0]) / sums[:, 2], level, len(units))
    method = f"paired bootstrap over {len(units)} {noun}"
    return Paired(delta, low, high, better, level, method, len(units), note)


def _check(samples: int, level: float) -> None:
    if samples < 1:
        raise EvalError(f"{samples} bootstrap samples cannot give an interval: use at least 1000")
    if not 0 < level < 1:
        raise EvalError(f"level {level} is no coverage: use a share between 0 and 1, as 0.95")


def _units(columns: np.ndarray, clusters: Sequence[str] | None) -> tuple[np.ndarray, str, str]:
    """Sum ``columns`` ``[utterances, k]`` within clusters.

    Returns:
        The sums ``[units, k]``, what a unit is (plural), and what must be said about it.
    """
    if clusters is None:
        return columns, "utterances", "does not cover other speakers: no speakers were given"
    if len(clusters) != len(columns):
        raise EvalError(
            f"{len(columns)} utterances but {len(clusters)} clusters: give one for each utterance"
        )
    names, member = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    if len(names) < 2:
        return columns, "utterances", "does not cover other speakers: there is only one"
    sums = np.zeros((len(names), columns.shape[1]), dtype=np.int64)
    np.add.at(sums, member, columns)
    return sums, "speakers", ""


def _resample(units: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Sums ``[samples, k]`` over units ``[units, k]`` drawn with replacement.

    Units with the same numbers are interchangeable, so they are drawn together: the same
    distribution, and 100,000 utterances shrink to the few hundred distinct rows they have.
    """
    distinct, copies = np.unique(units, axis=0, return_counts=True)
    share = copies / copies.sum()
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(distinct))
    return np.concatenate(
        [
            rng.multinomial(len(units), share, size=min(step, samples - done)) @ distinct
            for done in range(0, samples, step)
        ]
    )


def _student(counts: np.ndarray, n_ref: np.ndarray, level: float) -> tuple[float, float, float]:
    """Student's interval of ``sum(counts) / sum(n_ref)`` over units ``[units]``.

    Returns:
        Its ends and the probability that the ratio is below 0. NaN where one unit holds all
        reference tokens, so that nothing is known without it.
    """
    units, rest = len(counts), n_ref.sum() - n_ref
    if not rest.all():
        return math.nan, math.nan, math.nan
    ratio = counts.sum() / n_ref.sum()
    without = (counts.sum() - counts) / rest
    error = math.sqrt((units - 1) / units * ((without - ratio) ** 2).sum())
    reach = float(stdtrit(units - 1, (1 + level) / 2)) * error
    below = float(stdtr(units - 1, -ratio / error)) if error else float(ratio < 0)
    return float(ratio - reach), float(ratio + reach), below


def _also(note: str, end: float, noun: str) -> str:
    """The note of a Student interval, which may not exist."""
    if not math.isnan(end):
        return note
    return "; ".join(filter(None, [note, f"one of the {noun} has all the reference tokens"]))


def expanded_percentiles(values: np.ndarray, level: float, units: int) -> tuple[float, float]:
    """Percentiles of bootstrap replicates, further out by what ``units`` are too few.

    The spread of replicates is that of the units divided by ``units``, not ``units - 1``, and
    they know nothing of the heavier tails of t; both are made good (Hesterberg 2015).

    Args:
        values: Replicates of a figure, ``[samples]``.
        level: Nominal coverage.
        units: How many units were resampled, at least 2.
    """
    z = math.sqrt(units / (units - 1)) * float(stdtrit(units - 1, (1 + level) / 2))
    tail = NormalDist().cdf(-z)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _wilson(errors: int, tokens: int, level: float, n_units: int, note: str) -> Interval:
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    low = 0.0 if not errors else tokens / (tokens + z2)
    high = 1.0 if errors else z2 / (tokens + z2)
    note = "; ".join(filter(None, [note, "takes tokens as independent"]))
    return Interval(low, high, level, f"Wilson over {tokens} tokens", n_units, note)
