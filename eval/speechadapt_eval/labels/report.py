"""Everything that is said of one set of answers: figures with intervals, folds, classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.labels import metrics
from speechadapt_eval.labels.calibration import Calibration, calibration
from speechadapt_eval.labels.read import Labelled
from speechadapt_eval.statistics.bootstrap import Interval, confidence_interval
from speechadapt_eval.statistics.resample import bootstrap


@dataclass(frozen=True)
class Figure:
    """A metric.

    Attributes:
        metric: Of ``metrics.METRICS``.
        value: A share; NaN if there is none.
        interval: Its confidence interval.
    """

    metric: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Fold:
    """Figures of one predefined fold (shares; ``map`` is NaN without scores)."""

    name: str
    items: int
    values: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What ``evaluate`` found.

    Attributes:
        items: How many.
        one_each: Whether every reference has exactly one label.
        figures: Of all items together.
        classes: Figures of each class.
        without_positives: Classes that no reference has; they are not in ``macro_f1`` and ``map``.
        folds: Of each fold, in order of name; empty if no folds were given.
        calibration: Of the scores.
    """

    items: int
    one_each: bool
    figures: tuple[Figure, ...]
    classes: tuple[metrics.ClassScores, ...]
    without_positives: tuple[str, ...]
    folds: tuple[Fold, ...]
    calibration: Calibration

    def over_folds(self, metric: str) -> tuple[float, float]:
        """Mean and standard deviation (n - 1) over folds; NaN for fewer than two."""
        values = np.array([fold.values[metric] for fold in self.folds])
        if len(values) < 2:
            return np.nan, np.nan
        return float(values.mean()), float(values.std(ddof=1))


def evaluate(
    labelled: Labelled,
    *,
    folds: Mapping[str, str] | None = None,
    speakers: Mapping[str, str] | None = None,
    samples: int = 1000,
    seed: int = 0,
    bins: int = 15,
) -> Report:
    """Score answers.

    Args:
        labelled: From ``join``.
        folds: Item to predefined fold.
        speakers: Item to speaker or other block; intervals then resample these.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        bins: Of the calibration.

    Raises:
        EvalError: An item has no fold or no speaker, or a setting is out of range.
    """
    once = np.ones((1, len(labelled.ids)))
    clusters = None if speakers is None else _of_each(labelled, speakers, "speaker")
    found = metrics.values(labelled, once)[0]
    intervals = bootstrap(
        lambda weights: metrics.values(labelled, weights),
        len(labelled.ids),
        clusters,
        samples=samples,
        seed=seed,
    )
    # An accuracy is an error rate: with Wilson's interval where nothing, or all, is right.
    intervals[0] = _of_accuracy(labelled, clusters, samples, seed)
    figures = zip(metrics.METRICS, found.tolist(), intervals, strict=True)
    positives = labelled.truth.sum(axis=0).tolist()
    return Report(
        items=len(labelled.ids),
        one_each=labelled.one_each,
        figures=tuple(Figure(*figure) for figure in figures),
        classes=tuple(metrics.by_class(labelled)),
        without_positives=tuple(
            name for name, n in zip(labelled.classes, positives, strict=True) if not n
        ),
        folds=() if folds is None else _folds(labelled, _of_each(labelled, folds, "fold")),
        calibration=calibration(labelled, bins),
    )


def _of_accuracy(
    labelled: Labelled, clusters: list[str] | None, samples: int, seed: int
) -> Interval:
    wrong = (labelled.truth != labelled.answers).any(axis=1)
    of_errors = confidence_interval(
        wrong, np.ones(len(wrong)), clusters, samples=samples, seed=seed
    )
    note = "" if clusters is None else of_errors.note
    method = of_errors.method.replace("utterances", "items").replace("tokens", "items")
    return replace(
        of_errors, low=1 - of_errors.high, high=1 - of_errors.low, method=method, note=note
    )


def _folds(labelled: Labelled, fold_of: list[str]) -> tuple[Fold, ...]:
    made = []
    for name in sorted(set(fold_of)):
        part = metrics.select(labelled, np.flatnonzero(np.array(fold_of) == name))
        values = metrics.values(part, np.ones((1, len(part.ids))))[0]
        named = dict(zip(metrics.METRICS, values.tolist(), strict=True))
        made.append(Fold(name, len(part.ids), named))
    return tuple(made)


def _of_each(labelled: Labelled, table: Mapping[str, str], what: str) -> list[str]:
    if missing := [name for name in labelled.ids if name not in table]:
        raise EvalError(f"{len(missing)} items have no {what} ({some(missing)}); give one for each")
    return [table[name] for name in labelled.ids]
