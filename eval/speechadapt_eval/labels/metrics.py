"""Accuracy, F1 and average precision, of the items or of weighted resamples of them.

Each takes weights ``[samples, items]`` and gives a value for each sample: one row of ones is the
figure itself, rows of bootstrap counts its distribution. Values are those of scikit-learn, but
for one thing: means over classes are over those that some item has. A class without positives can
only have F1 and average precision 0; scikit-learn counts these in, and one wrong answer of a class
that the test set has not got then takes a quarter of the macro F1 of three classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechadapt_eval.labels.read import NO_LABEL, Labelled


@dataclass(frozen=True)
class ClassScores:
    """Figures of one class; NaN where there is none.

    Attributes:
        label: The class.
        positives: Items that have it.
        answered: Items that were given it.
        precision: Share of those given it that have it.
        recall: Share of those that have it that were given it.
        f1: Harmonic mean of the two; NaN without positives.
        average_precision: Area under precision and recall; NaN without positives or scores.
    """

    label: str
    positives: int
    answered: int
    precision: float
    recall: float
    f1: float
    average_precision: float


def accuracy(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """Share of the items whose labels are all right and complete, ``[samples]``."""
    right = (labelled.truth == labelled.answers).all(axis=1)
    return weights @ right / weights.sum(axis=1)


def f1(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """F1 of each class, ``[samples, classes]``; NaN where no item has it."""
    hits = weights @ (labelled.truth & labelled.answers)
    positives = weights @ labelled.truth
    total = positives + weights @ labelled.answers
    return np.where(positives > 0, _ratio(2 * hits, total), np.nan)


def macro_f1(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes with positives, ``[samples]``."""
    return _mean(f1(labelled, weights))


def micro_f1(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """F1 of all labels together, ``[samples]``; the accuracy, where there is one label each."""
    hits = weights @ (labelled.truth & labelled.answers).sum(axis=1)
    total = weights @ (labelled.truth.sum(axis=1) + labelled.answers.sum(axis=1))
    return _ratio(2 * hits, total)


def average_precision(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one class: precision at each positive, averaged.

    Items of equal score stand at one threshold, as in scikit-learn.

    Args:
        truth: ``[items]``, bool.
        scores: ``[items]``.
        weights: ``[samples, items]``.

    Returns:
        ``[samples]``; NaN where no positive was drawn.
    """
    order = np.argsort(-scores, kind="stable")
    truth, scores, weights = truth[order], scores[order], weights[:, order]
    positives = np.flatnonzero(truth)
    # Precision is taken where the run of equal scores ends.
    ends = np.searchsorted(-scores, -scores[positives], side="right") - 1
    above = np.cumsum(weights, axis=1)[:, ends]
    hits = np.cumsum(weights * truth, axis=1)[:, ends]
    drawn = weights[:, positives]
    return _ratio((drawn * _ratio(hits, above, empty=0)).sum(axis=1), drawn.sum(axis=1))


def average_precisions(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """Average precision of each class, ``[samples, classes]``; NaN without positives or scores."""
    found = np.full((len(weights), len(labelled.classes)), np.nan)
    if labelled.scores is not None:
        for i in np.flatnonzero(labelled.truth.any(axis=0)):
            found[:, i] = average_precision(labelled.truth[:, i], labelled.scores[:, i], weights)
    return found


def mean_average_precision(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """Mean average precision over the classes with positives, ``[samples]``."""
    return _mean(average_precisions(labelled, weights))


METRICS = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "map": mean_average_precision,
}


def values(labelled: Labelled, weights: np.ndarray) -> np.ndarray:
    """All of ``METRICS``, ``[samples, metrics]``; ``map`` is NaN without scores."""
    return np.stack([metric(labelled, weights) for metric in METRICS.values()], axis=1)


def by_class(labelled: Labelled) -> list[ClassScores]:
    """Figures of each class."""
    once = np.ones((1, len(labelled.ids)))
    positives, answered = labelled.truth.sum(axis=0), labelled.answers.sum(axis=0)
    hits = (labelled.truth & labelled.answers).sum(axis=0)
    columns = zip(
        labelled.classes,
        positives.tolist(),
        answered.tolist(),
        _ratio(hits, answered).tolist(),
        _ratio(hits, positives).tolist(),
        f1(labelled, once)[0].tolist(),
        average_precisions(labelled, once)[0].tolist(),
        strict=True,
    )
    return [ClassScores(*row) for row in columns]


def confusion(labelled: Labelled) -> tuple[tuple[str, ...], np.ndarray]:
    """Counts of reference (rows) against answer (columns), where there is one label each.

    Returns:
        Names of the columns, the classes and last ``(none)`` for items without an answer, and
        counts ``[classes, classes + 1]``.

    Raises:
        ValueError: References have no label, or several.
    """
    if not labelled.one_each:
        raise ValueError("a confusion matrix needs one label each")
    unanswered = ~labelled.answers.any(axis=1, keepdims=True)
    columns = np.concatenate([labelled.answers, unanswered], axis=1)
    counts = labelled.truth.T.astype(np.int64) @ columns.astype(np.int64)
    return (*labelled.classes, NO_LABEL), counts


def select(labelled: Labelled, rows: Sequence[int] | np.ndarray) -> Labelled:
    """Some of the items; all classes stay."""
    scores = None if labelled.scores is None else labelled.scores[rows]
    ids = tuple(labelled.ids[i] for i in rows)
    truth, answers = labelled.truth[rows], labelled.answers[rows]
    return Labelled(ids, labelled.classes, truth, answers, scores, labelled.one_each)


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    return np.divide(
        above, below, out=np.full(shape, empty, dtype=np.float64), where=np.asarray(below) > 0
    )


def _mean(per_class: np.ndarray) -> np.ndarray:
    """Over the classes that have a value."""
    there = ~np.isnan(per_class)
    return _ratio(np.where(there, per_class, 0).sum(axis=1), there.sum(axis=1))
