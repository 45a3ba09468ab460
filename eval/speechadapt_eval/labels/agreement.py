"""Agreement of predicted with given opinions: correlations and squared error.

The measures of the VoiceMOS challenges (Huang et al., Interspeech 2022, arXiv:2203.11389), at
utterance level and, on the means of each system, at system level.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import Interval
from speechadapt_eval.statistics.resample import bootstrap

MEASURES = ("lcc", "srcc", "ktau", "mse")
_FEWEST = 3  # pairs of values, below which a correlation says nothing


@dataclass(frozen=True)
class Predictions:
    """Values of a prediction file, ``[utterances]`` each; the last two None where not given."""

    ids: tuple[str, ...]
    predicted: np.ndarray
    rating: np.ndarray
    systems: tuple[str, ...] | None
    speakers: tuple[str, ...] | None


@dataclass(frozen=True)
class Agreement:
    """One measure.

    Attributes:
        unit: ``utterance`` or ``system``.
        measure: Of ``MEASURES``: linear (Pearson), rank (Spearman) and Kendall's correlation
            (tau-b), and mean squared error.
        value: NaN where there is none: fewer than three values, or all the same.
        n: Utterances or systems.
        interval: Its confidence interval.
    """

    unit: str
    measure: str
    value: float
    n: int
    interval: Interval


def read_predictions(path: Path) -> Predictions:
    """Read a CSV with ``id``, ``predicted``, ``rating``, and perhaps ``system`` and ``speaker``.

    Raises:
        EvalError: The file is damaged, a column is missing, a value is no number, or an id
            occurs twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EvalError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EvalError(f"{path}: byte {error.start + 1} is not UTF-8; convert the file") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = reader.fieldnames or ()
        if missing := [name for name in ("id", "predicted", "rating") if name not in names]:
            raise EvalError(f"{path}:1: no column {missing[0]!r}, only {', '.join(names)}")
        rows = {}
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise EvalError(f"{where}: not as many cells as the header has")
            if row["id"] in rows:
                raise EvalError(f"{where}: {row['id']!r} occurs twice; average its ratings first")
            rows[row["id"]] = (_value(row, "predicted", where), _value(row, "rating", where), row)
    except csv.Error as error:
        raise EvalError(f"{path}:{reader.line_num}: {error}") from error
    if not rows:
        raise EvalError(f"{path} has no utterances")
    groups = [
        tuple(row[name] for *_, row in rows.values()) if name in names else None
        for name in ("system", "speaker")
    ]
    pairs = np.array([values[:2] for values in rows.values()])
    return Predictions(tuple(rows), pairs[:, 0], pairs[:, 1], *groups)


def agreement(predictions: Predictions, *, samples: int = 1000, seed: int = 0) -> list[Agreement]:
    """Compare predictions with ratings.

    Intervals resample utterances (speakers, where given) at utterance level and systems at
    system level.

    Raises:
        EvalError: A setting is out of range.
    """
    found = _agreement("utterance", predictions.predicted, predictions.rating, predictions.speakers,
                   samples, seed)  # fmt: skip
    if predictions.systems is not None:
        names, member = np.unique(np.array(predictions.systems), return_inverse=True)
        sizes = np.bincount(member, minlength=len(names))
        means = [
            np.bincount(member, values, len(names)) / sizes
            for values in (predictions.predicted, predictions.rating)
        ]
        found += _agreement("system", means[0], means[1], None, samples, seed)
    return found


def measures(predicted: np.ndarray, rating: np.ndarray) -> list[float]:
    """Each of ``MEASURES`` for values ``[n]``; correlations are NaN below three or constant."""
    mse = float(((predicted - rating) ** 2).mean()) if len(rating) else math.nan
    if len(rating) < _FEWEST or not np.ptp(predicted) or not np.ptp(rating):
        return [math.nan, math.nan, math.nan, mse]
    ranks = stats.rankdata(predicted), stats.rankdata(rating)
    return [
        float(np.corrcoef(predicted, rating)[0, 1]),
        float(np.corrcoef(*ranks)[0, 1]),
        float(stats.kendalltau(predicted, rating).statistic),
        mse,
    ]


def _agreement(
    unit: str,
    predicted: np.ndarray,
    rating: np.ndarray,
    clusters: Sequence[str] | None,
    samples: int,
    seed: int,
) -> list[Agreement]:
    def resampled(weights: np.ndarray) -> np.ndarray:
        drawn = [np.repeat(np.arange(len(row)), row.astype(int)) for row in weights]
        return np.array([measures(predicted[rows], rating[rows]) for rows in drawn])

    intervals = bootstrap(
        resampled, len(rating), clusters, samples=samples, seed=seed, noun=f"{unit}s"
    )
    values = measures(predicted, rating)
    return [
        Agreement(unit, name, value, len(rating), interval)
        for name, value, interval in zip(MEASURES, values, intervals, strict=True)
    ]


def _value(row: dict[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EvalError(f"{where}: {column} {row[column]!r} of {row['id']!r} is no number")
    return value
