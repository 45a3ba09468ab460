"""Calibration: whether answers given with 80 % confidence are right four times in five."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from speechadapt_eval.labels.read import Labelled


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence.

    Attributes:
        low: Confidence above this (the first bin: from this) ...
        high: ... up to this.
        n: How many answers.
        confidence: Their mean confidence; NaN if there are none.
        accuracy: Share of them that is right; NaN if there are none.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and the reliability diagram it is made from.

    Attributes:
        ece: Mean of |accuracy - confidence| over the answers, bin by bin (a share).
        of: What an answer is.
        bins: All of them, empty ones too.
        reason: Why there is none; empty if there is one.
    """

    ece: float
    of: str
    bins: tuple[Bin, ...]
    reason: str = ""


def calibration(labelled: Labelled, bins: int = 15) -> Calibration:
    """Expected calibration error with bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599. With one
    label each an answer is the best class of an item, its confidence the score; otherwise each
    pair of item and class is one, "right" if the item has the class.
    """
    if labelled.scores is None:
        return Calibration(math.nan, "", (), "the answers have no scores")
    if labelled.scores.min() < 0 or labelled.scores.max() > 1 + 1e-6:
        return Calibration(math.nan, "", (), "the scores are no probabilities: beyond 0 to 1")
    if labelled.one_each:
        confidence = labelled.scores[labelled.answers]
        right = (labelled.truth & labelled.answers).any(axis=1)
        of = "best class of an item"
    else:
        confidence, right = labelled.scores.ravel(), labelled.truth.ravel()
        of = "item and class"
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    made = []
    for i in range(bins):
        inside = which == i
        n = int(inside.sum())
        mean, share = (confidence[inside].mean(), right[inside].mean()) if n else (math.nan,) * 2
        made.append(Bin(float(edges[i]), float(edges[i + 1]), n, float(mean), float(share)))
    gap = sum(b.n * abs(b.accuracy - b.confidence) for b in made if b.n)
    return Calibration(gap / len(confidence), of, tuple(made))
