"""Slices of a test set: utterances with the same value of a field, or with one in a range."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.transcripts.wer import ErrorRate

NONE = "(none)"  # the slice of utterances that lack the field
DURATIONS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)  # seconds


@dataclass(frozen=True)
class Slicing:
    """A field by which to slice, and for ranges of numbers their inner edges, ascending."""

    field: str
    edges: tuple[float, ...] = ()


def parse(text: str) -> Slicing:
    """Read ``noise``, ``snr``, or with edges ``snr:0,10,20``; ``duration`` has edges by default.

    Raises:
        EvalError: The edges are no ascending numbers, or there is no field.
    """
    name, colon, rest = text.partition(":")
    if not name:
        raise EvalError(f"{text!r} names no field: write e.g. noise, or snr:0,10,20")
    name = {"lang": "language"}.get(name, name)
    if not colon:
        return Slicing(name, DURATIONS if name == "duration" else ())
    try:
        edges = tuple(float(edge) for edge in rest.split(","))
    except ValueError:
        edges = ()
    if not edges or list(edges) != sorted(set(edges)) or not all(map(math.isfinite, edges)):
        raise EvalError(f"edges {rest!r} of {name!r} are no ascending numbers: write e.g. 1,5,10")
    return Slicing(name, edges)


def slices(rate: ErrorRate, slicing: Slicing, values: Mapping[str, Any]) -> dict[str, ErrorRate]:
    """The rate of each slice: ranges and numbers ascending, other values sorted as text.

    Args:
        rate: What was scored.
        slicing: The field and the edges.
        values: Utterance id to value of the field; utterances without one are a slice of their
            own, the last.

    Raises:
        EvalError: No scored utterance has the field, or a value that must be a number is none.
    """
    present = {u.id: values[u.id] for u in rate.utterances if values.get(u.id) is not None}
    if not present:
        raise EvalError(
            f"no scored utterance has a field {slicing.field!r}: it comes from utts.jsonl, from a "
            "Kaldi data directory, or from a table given with --field"
        )
    labels = dict.fromkeys((u.id for u in rate.utterances), NONE)
    labels |= {name: _label(value, slicing, name) for name, value in present.items()}
    groups = rate.groups(labels)
    if slicing.edges:
        order = {_range(slicing.edges, i): i for i in range(len(slicing.edges) + 1)}
        return dict(sorted(groups.items(), key=lambda item: order.get(item[0], len(order))))
    return dict(sorted(groups.items(), key=lambda item: _rank(item[0])))


def _label(value: Any, slicing: Slicing, name: str) -> str:
    if not slicing.edges:
        return f"{value:g}" if isinstance(value, float) else str(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise EvalError(f"{slicing.field!r} of utterance {name!r} is {value!r}, not a number")
    return _range(slicing.edges, bisect_right(slicing.edges, number))


def _range(edges: Sequence[float], index: int) -> str:
    if index == 0:
        return f"< {edges[0]:g}"
    if index == len(edges):
        return f">= {edges[-1]:g}"
    return f"{edges[index - 1]:g} - {edges[index]:g}"


def _rank(label: str) -> tuple[bool, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.inf
    return label == NONE, math.inf if math.isnan(number) else number, label
