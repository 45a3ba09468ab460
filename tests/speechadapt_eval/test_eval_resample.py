"""Bootstrap over weighted items: its coverage, and what it refuses."""

import math

import numpy as np
import pytest

from speechadapt_eval import EvalError
from speechadapt_eval.statistics import resample
from speechadapt_eval.statistics.resample import bootstrap


def mean_of(values):
    return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]


def test_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = rng.exponential(2, size=80)
        (interval,) = bootstrap(mean_of(values), 80, samples=300)
        hits += interval.low <= 2 <= interval.high
    assert 0.89 <= hits / 300 <= 0.98


def test_clusters_are_drawn_as_a_whole():
    rng = np.random.default_rng(1)
    hits = alone = 0
    clusters = np.repeat([f"s{i}" for i in range(30)], 20).tolist()
    for _ in range(150):
        values = np.repeat(rng.normal(size=30), 20) + rng.normal(size=600) * 0.1
        for given in (clusters, None):
            (interval,) = bootstrap(mean_of(values), 600, given, samples=200)
            covered = interval.low <= 0 <= interval.high
            hits, alone = hits + (given is not None) * covered, alone + (given is None) * covered
    assert hits / 150 > 0.87 and alone / 150 < 0.6
    assert interval.method == "bootstrap over 600 items"


def test_blocks_make_no_difference(monkeypatch):
    values = np.arange(50.0)
    before = bootstrap(mean_of(values), 50, samples=101, seed=3)
    monkeypatch.setattr(resample, "_CELLS", 50 * 7)
    assert bootstrap(mean_of(values), 50, samples=101, seed=3) == before
    assert bootstrap(mean_of(values), 50, samples=101, seed=4) != before


def test_what_cannot_be_given():
    (interval,) = bootstrap(mean_of(np.ones(30)), 30)
    assert math.isnan(interval.low) and interval.note == "every resample gives this value"
    (interval,) = bootstrap(lambda weights: np.full((len(weights), 1), np.nan), 30)
    assert math.isnan(interval.high) and interval.note == "no resample has a value"
    one, two = bootstrap(lambda weights: weights @ np.ones((1, 2)), 1, noun="clips")
    assert math.isnan(one.low) and two.note == "one of the clips only: no interval can be given"


def test_notes():
    values = np.arange(10.0)
    (interval,) = bootstrap(mean_of(values), 10, noun="clips")
    assert interval.note == "10 clips are few: the interval is probably too narrow"
    (interval,) = bootstrap(mean_of(values), 10, ["me"] * 10)
    assert interval.note == "does not cover other speakers: there is only one"
    (interval,) = bootstrap(mean_of(values), 10, list("aabbccddee"))
    assert interval.method == "bootstrap over 5 speakers" and "5 speakers are few" in interval.note


@pytest.mark.parametrize("wrong", [{"samples": 1}, {"level": 1}, {"level": 0}])
def test_settings(wrong):
    with pytest.raises(EvalError, match="at least 1000"):
        bootstrap(mean_of(np.ones(3)), 3, **wrong)


def test_number_of_clusters():
    with pytest.raises(EvalError, match="3 items but 2 clusters"):
        bootstrap(mean_of(np.ones(3)), 3, ["a", "b"])
