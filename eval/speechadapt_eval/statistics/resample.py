"""Bootstrap intervals of any statistic that can be computed from weighted items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
from tqdm import tqdm

from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import FEW_CLUSTERS, Interval, expanded_percentiles

# Weights [samples, items] -> values [samples, statistics]; NaN where there is none.
Statistic = Callable[[np.ndarray], np.ndarray]

INTERVAL = tuple(field.name for field in fields(Interval))  # columns of a csv file

_CELLS = 2_000_000  # weights held at a time: 16 MB


def bootstrap(
    statistic: Statistic,
    n: int,
    clusters: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    noun: str = "items",
) -> list[Interval]:
    """Expanded percentile intervals; a replicate is given as how often each item was drawn.

    Args:
        statistic: Called with float64 weights ``[k, n]``, returns ``[k, statistics]``.
        n: Number of items, at least one.
        clusters: Speaker or other block of each item, drawn as a whole, ``[n]``.
        samples: Bootstrap replicates.
        seed: Of the resampling.
        level: Nominal coverage.
        noun: What an item is (plural), for ``method``.

    Returns:
        An interval for each statistic; NaN, with the reason as note, where fewer than two units
        can be drawn or all replicates give the same value.

    Raises:
        EvalError: A setting is out of range or the number of clusters is wrong.
    """
    if samples < 2 or not 0 < level < 1:
        raise EvalError(
            f"{samples} bootstrap samples at level {level} give no interval: use at least 1000 "
            "samples and a level between 0 and 1"
        )
    member, noun, note = _members(n, clusters, noun)
    units = int(member.max()) + 1
    if units < 2:
        width = statistic(np.ones((1, n))).shape[1]
        nothing = f"one of the {noun} only: no interval can be given"
        return [Interval(math.nan, math.nan, level, "none", units, nothing)] * width
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    share = np.full(units, 1 / units)
    blocks = []
    for done in tqdm(range(0, samples, step), "bootstrap", disable=None, delay=2, leave=False):
        drawn = rng.multinomial(units, share, size=min(step, samples - done))
        blocks.append(statistic(drawn[:, member].astype(np.float64)))
    method = f"bootstrap over {units} {noun}"
    return [_interval(column, level, method, units, note) for column in np.concatenate(blocks).T]


def _members(n: int, clusters: Sequence[str] | None, noun: str) -> tuple[np.ndarray, str, str]:
    """Unit of each item ``[n]``, what a unit is (plural), and what must be said about it."""
    if clusters is None:
        return np.arange(n), noun, _few(n, noun)
    if len(clusters) != n:
        raise EvalError(f"{n} {noun} but {len(clusters)} clusters: give one for each")
    names, member = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    if len(names) < 2:
        return np.arange(n), noun, "does not cover other speakers: there is only one"
    return member, "speakers", _few(len(names), "speakers")


def _few(units: int, noun: str) -> str:
    if units >= FEW_CLUSTERS:
        return ""
    return f"{units} {noun} are few: the interval is probably too narrow"


def _interval(values: np.ndarray, level: float, method: str, units: int, note: str) -> Interval:
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) < 1e-12:
        same = "no resample has a value" if not len(values) else "every resample gives this value"
        return Interval(math.nan, math.nan, level, "none", units, same)
    low, high = expanded_percentiles(values, level, units)
    return Interval(low, high, level, method, units, note)
