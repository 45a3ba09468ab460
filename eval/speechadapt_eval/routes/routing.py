"""Where a combiner sends what: top-1, entropy, confusion, regret against the oracle.

Decisions are given per utterance (one line of JSON each) or as mean weights per layer (npz).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import entr

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import numbered_lines
from speechadapt_eval.routes.tensors import read_arrays
from speechadapt_eval.statistics.bootstrap import (
    Interval,
    Paired,
    confidence_interval,
    paired_difference,
)
from speechadapt_eval.transcripts.wer import ErrorRate, Utterance

_ROUNDING = 1e-3  # weights add up to 1 but for what rounding took away
WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one utterance.

    Attributes:
        id: Of the utterance.
        condition: The true one (language, noise, ...).
        weights: Share of each adapter, adding up to 1; a choice is one share of 1.
        soft: Whether these are weights; False for a mere choice, which has no entropy.
    """

    id: str
    condition: str
    weights: dict[str, float]
    soft: bool

    @property
    def chosen(self) -> str:
        """The adapter with the largest share, the first of several."""
        return max(self.weights, key=lambda name: self.weights[name])


@dataclass(frozen=True)
class Routed:
    """Routing of one condition (``all``: of every utterance).

    Attributes:
        condition: The true one.
        utterances: How many.
        top1: Share for which the adapter of the condition was chosen; NaN without such adapter.
        interval: Of ``top1``.
        entropy: Mean of −Σ w ln w / ln(adapters), from 0 (one adapter has all) to 1 (all have the
            same); NaN for choices.
        own: Mean share of the adapter of the condition; NaN without such adapter.
        chosen: Adapter to how many utterances chose it.
        weights: Adapter to mean share.
        regret: Error rate with the chosen adapters minus that with those of the true condition;
            None unless errors of each adapter are known.
    """

    condition: str
    utterances: int
    top1: float
    interval: Interval
    entropy: float
    own: float
    chosen: dict[str, int]
    weights: dict[str, float]
    regret: Paired | None = None


@dataclass(frozen=True)
class LayerWeights:
    """Mean weights of a combiner: ``weights`` ``[layers, adapters, conditions]`` and its names."""

    weights: np.ndarray
    layers: tuple[str, ...]
    adapters: tuple[str, ...]
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Routing in one layer under one condition; see ``Routed``.

    Attributes:
        layer: Name or number.
        condition: The true one.
        chosen: The adapter with the largest weight.
        right: Whether it is that of the condition; None without such adapter.
        entropy: Normalised, of the mean weights.
        own: Weight of the adapter of the condition; NaN without such adapter.
        weights: Adapter to weight.
    """

    layer: str
    condition: str
    chosen: str
    right: bool | None
    entropy: float
    own: float
    weights: dict[str, float]


def read_decisions(path: Path) -> list[Decision]:
    """Read decisions, one JSON object a line.

    It has ``id`` (or ``utterance``), ``condition``, and ``weights`` (adapter to share) or
    ``adapter`` (the one chosen).

    Raises:
        EvalError: The file or a line cannot be read, an id occurs twice, weights are negative, do
            not add up to 1, or are of other adapters than those of the first line.
    """
    decisions: dict[str, Decision] = {}
    adapters: set[str] | None = None
    for where, line in numbered_lines(path):
        decision = _decision(where, line)
        if decision.id in decisions:
            raise EvalError(f"{where}: utterance {decision.id!r} occurs a second time")
        if decision.soft:
            adapters = adapters or set(decision.weights)
            if odd := adapters ^ set(decision.weights):
                raise EvalError(
                    f"{where}: weights of other adapters than before ({some(odd)}): give all of "
                    "them on each line, 0 where one has no share"
                )
        decisions[decision.id] = decision
    if len({decision.soft for decision in decisions.values()}) > 1:
        raise EvalError(f"{path}: some lines have weights, others a choice: give one of the two")
    return list(decisions.values())


def read_layers(path: Path) -> LayerWeights:
    """Read an npz of mean weights.

    It holds ``weights`` ``[layers, adapters, conditions]``, the names ``adapters`` and
    ``conditions``, and ``layers`` if those have names.

    Raises:
        EvalError: The file cannot be read, an array is missing or has another shape, or weights
            are negative or do not add up to 1 over the adapters.
    """
    arrays = read_arrays(path)
    if missing := {"weights", "adapters", "conditions"} - arrays.keys():
        raise EvalError(
            f"{path}: no array {some(missing)}, only {some(arrays)}; write it with numpy.savez"
        )
    weights = arrays["weights"]
    if weights.ndim != 3 or weights.dtype.kind != "f":
        raise EvalError(
            f"{path}: weights are {weights.dtype} {list(weights.shape)} instead of floating point "
            "[layers, adapters, conditions]"
        )
    names = {
        key: tuple(str(name) for name in arrays.get(key, np.arange(count)).reshape(-1))
        for key, count in zip(("layers", "adapters", "conditions"), weights.shape, strict=True)
    }
    for (key, found), count in zip(names.items(), weights.shape, strict=True):
        if len(found) != count or len(set(found)) != count:
            raise EvalError(f"{path}: {len(set(found))} names of {key} for {count} of them")
    weights = weights.astype(np.float64)
    if not np.isfinite(weights).all() or weights.min(initial=0) < 0:
        raise EvalError(f"{path}: weights must be 0 or more")
    totals = weights.sum(1)
    if (bad := np.argwhere(abs(totals - 1) > _ROUNDING)).size:
        layer, condition = bad[0]
        raise EvalError(
            f"{path}: weights of layer {names['layers'][layer]} and condition "
            f"{names['conditions'][condition]} add up to {totals[layer, condition]:g}, not 1"
        )
    return LayerWeights(weights, **names)


def routed(
    decisions: Sequence[Decision],
    *,
    own: Mapping[str, str] | None = None,
    rates: Mapping[str, ErrorRate] | None = None,
    speakers: Mapping[str, str] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> list[Routed]:
    """Routing of each condition, and of all utterances where there are several.

    Args:
        decisions: What was decided.
        own: Condition to its adapter; by default the one of the same name.
        rates: Adapter to its errors on these utterances, for the regret.
        speakers: Utterance id to speaker, for the intervals.
        samples: Bootstrap replicates.
        seed: Of the resampling.

    Raises:
        EvalError: Errors are missing of an adapter or an utterance.
    """
    adapters = sorted({name for decision in decisions for name in decision.weights})
    conditions = list(dict.fromkeys(decision.condition for decision in decisions))
    trained = _trained(own, conditions, adapters)
    groups = {
        name: [decision for decision in decisions if decision.condition == name]
        for name in conditions
    }
    if len(conditions) > 1:
        if WHOLE in groups:
            raise EvalError(f"condition {WHOLE!r} is the row of all utterances: rename yours")
        groups[WHOLE] = list(decisions)
    found = []
    for condition, group in groups.items():
        known = [decision for decision in group if decision.condition in trained]
        wrong = [decision.chosen != trained[decision.condition] for decision in known]
        clusters = None
        if speakers is not None:
            if lost := [decision.id for decision in known if decision.id not in speakers]:
                raise EvalError(f"{len(lost)} utterances have no speaker ({some(lost)})")
            clusters = [speakers[decision.id] for decision in known]
        options: dict[str, Any] = {"samples": samples, "seed": seed}
        found.append(
            Routed(
                condition=condition,
                utterances=len(group),
                top1=1 - sum(wrong) / len(wrong) if wrong else math.nan,
                interval=_turned(
                    confidence_interval(
                        list(map(int, wrong)), [1] * len(wrong), clusters, **options
                    )
                ),
                entropy=_mean([entropy(d.weights.values()) for d in group if d.soft]),
                own=_mean([d.weights.get(trained[d.condition], 0.0) for d in known]),
                chosen={name: sum(d.chosen == name for d in group) for name in adapters},
                weights={
                    name: _mean([d.weights.get(name, 0.0) for d in group]) for name in adapters
                },
                regret=_regret(known, trained, rates, speakers, options) if rates else None,
            )
        )
    return found


def layers(table: LayerWeights, own: Mapping[str, str] | None = None) -> list[Layer]:
    """Routing of each layer under each condition.

    Args:
        table: The weights.
        own: Condition to its adapter; by default the one of the same name.
    """
    trained = _trained(own, table.conditions, table.adapters)
    found = []
    for i, layer in enumerate(table.layers):
        for j, condition in enumerate(table.conditions):
            weights = dict(zip(table.adapters, table.weights[i, :, j].tolist(), strict=True))
            chosen = max(weights, key=lambda name: weights[name])
            mine = trained.get(condition)
            found.append(
                Layer(
                    layer,
                    condition,
                    chosen,
                    None if mine is None else chosen == mine,
                    entropy(weights.values()),
                    math.nan if mine is None else weights[mine],
                    weights,
                )
            )
    return found


def entropy(weights: Any) -> float:
    """Normalised entropy of shares: −Σ w ln w / ln n, in 0 … 1; 0 for a single one."""
    shares = np.asarray(list(weights), float)
    if len(shares) < 2:
        return 0.0
    return float(entr(shares / shares.sum()).sum() / math.log(len(shares)))


def _decision(where: str, line: str) -> Decision:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{where}: not JSON ({error}); write one object a line") from error
    if not isinstance(value, dict):
        raise EvalError(f"{where}: not an object with id, condition, and weights or adapter")
    name, condition = value.get("id", value.get("utterance")), value.get("condition")
    if not isinstance(name, str) or not isinstance(condition, str) or not name or not condition:
        raise EvalError(f"{where}: no text 'id' and text 'condition'")
    weights, adapter = value.get("weights"), value.get("adapter")
    if (weights is None) == (adapter is None):
        raise EvalError(f"{where}: {name!r} needs either 'weights' or 'adapter'")
    if weights is None:
        if not isinstance(adapter, str) or not adapter:
            raise EvalError(f"{where}: 'adapter' of {name!r} is not a name")
        return Decision(name, condition, {adapter: 1.0}, False)
    if not isinstance(weights, dict) or not weights:
        raise EvalError(f"{where}: 'weights' of {name!r} is not an object of adapter and share")
    for key, share in weights.items():
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 <= share <= 1 + _ROUNDING:
            raise EvalError(f"{where}: the weight of {key!r} is no share between 0 and 1")
    if abs(sum(weights.values()) - 1) > _ROUNDING:
        total = sum(weights.values())
        raise EvalError(f"{where}: the weights of {name!r} add up to {total:g}, not 1")
    return Decision(name, condition, {key: float(share) for key, share in weights.items()}, True)


def _trained(
    own: Mapping[str, str] | None, conditions: Sequence[str], adapters: Sequence[str]
) -> dict[str, str]:
    if own is None:
        return {name: name for name in conditions if name in adapters}
    for kind, names, known in (
        ("condition", own.keys(), conditions),
        ("adapter", own.values(), adapters),
    ):
        if odd := [name for name in names if name not in known]:
            raise EvalError(f"{kind} {odd[0]!r} does not occur: there are {', '.join(known)}")
    return dict(own)


def _regret(
    decisions: Sequence[Decision],
    trained: Mapping[str, str],
    rates: Mapping[str, ErrorRate],
    speakers: Mapping[str, str] | None,
    options: dict[str, Any],
) -> Paired | None:
    """Errors with the chosen adapters against those with the adapters of the true conditions."""
    if not decisions:
        return None
    tables = {name: {u.id: u for u in rate.utterances} for name, rate in rates.items()}
    sides: list[list[Utterance]] = []
    for names in (
        {decision.id: trained[decision.condition] for decision in decisions},
        {decision.id: decision.chosen for decision in decisions},
    ):
        side = []
        for utterance, adapter in sorted(names.items()):
            if adapter not in tables:
                raise EvalError(
                    f"the errors of adapter {adapter!r} are not given, which {utterance!r} needs: "
                    "give the transcripts of every adapter, or of none"
                )
            if utterance not in tables[adapter]:
                raise EvalError(f"utterance {utterance!r} is not among those of {adapter!r}")
            side.append(tables[adapter][utterance])
        sides.append(side)
    first = next(iter(rates.values()))
    oracle, auto = (replace(first, utterances=tuple(side), missing=(), extra=()) for side in sides)
    return paired_difference(oracle, auto, speakers, **options)


def _turned(interval: Interval) -> Interval:
    """The interval of 1 − rate."""
    return replace(interval, low=1 - interval.high, high=1 - interval.low)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
