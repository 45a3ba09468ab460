"""A run as reports see it: every transcript scored again, every figure that its tables hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from speechadapt_eval.io import Row
from speechadapt_eval.runs.folder import Run
from speechadapt_eval.runs.scoring import languages_of
from speechadapt_eval.statistics.bootstrap import confidence_interval, interval_of
from speechadapt_eval.transcripts.wer import ErrorRate, Utterance, score


@dataclass(frozen=True)
class Part:
    """What one system made of one test set.

    Attributes:
        system: Name of the system.
        set: Name of the test set.
        lang: Language of the set, or of most of its utterances; empty if nothing says.
        rate: The transcripts, scored in the unit and with the normaliser of ``tables/wer.csv``.
        rows: What is known of each utterance, by id.
        low: Lower end of the rate's interval (a share); NaN where there is none.
        high: Upper end.
        method: How the interval was made.
        note: What it does not say.
    """

    system: str
    set: str
    lang: str
    rate: ErrorRate
    rows: Mapping[str, Row]
    low: float
    high: float
    method: str
    note: str

    @cached_property
    def speakers(self) -> dict[str, str] | None:
        """Utterance id to speaker; None unless all have one."""
        known = {name: row.fields.get("speaker") for name, row in self.rows.items()}
        return {k: str(v) for k, v in known.items()} if all(known.values()) else None

    def number(self, utterance: str, field: str) -> float:
        """A field of an utterance as a number; NaN where it is none."""
        return as_number(self.rows[utterance].fields.get(field))


@dataclass(frozen=True)
class ScoredRun:
    """A run and its parts, in the order of the run; its first system is the baseline."""

    run: Run
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.run.path.resolve().name

    @property
    def systems(self) -> list[str]:
        """Systems that have transcripts."""
        return list(dict.fromkeys(part.system for part in self.parts))

    @property
    def sets(self) -> list[str]:
        """Sets of which there are transcripts."""
        return list(dict.fromkeys(part.set for part in self.parts))

    def part(self, system: str, set_name: str) -> Part | None:
        """What a system made of a set, if it did."""
        return next((p for p in self.parts if (p.system, p.set) == (system, set_name)), None)

    def common_sets(self) -> list[str]:
        """Sets that every system transcribed, so that their means can be compared."""
        return [name for name in self.sets if all(self.part(s, name) for s in self.systems)]


def read_run(path: Path) -> ScoredRun:
    """Read and score a run.

    Raises:
        EvalError: A file is missing or damaged.
    """
    run = Run.read(path)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    compared = {row.get("unit") for row in run.table("pairs")}
    # A set may be scored in several units: the one that systems are compared by, or the first.
    for row in sorted(run.table("wer"), key=lambda row: row.get("unit") not in compared):
        cells.setdefault((row.get("system", ""), row.get("set", "")), row)
    parts = []
    for system, one in run.decoded():
        rows = run.rows(system.name, one.name)
        known = cells.get((system.name, one.name), {})
        refs = {name: row.ref for name, row in rows.items() if row.ref is not None}
        hyps = {name: row.hyp for name, row in rows.items() if row.hyp is not None}
        if not refs:
            continue  # a set without references has nothing to report
        rate = score(
            refs,
            {name: hyps[name] for name in hyps.keys() & refs.keys()},
            unit=known.get("unit") or "word",
            normalize=known.get("normalizer") or "unicode",
            mode="all",
            languages=languages_of(rows, one.language),
        )
        langs = Counter(row.lang for row in rows.values() if row.lang).most_common(1)
        part = Part(
            system.name,
            one.name,
            one.language or (langs[0][0] if langs else ""),
            rate,
            rows,
            as_number(known.get("low")),
            as_number(known.get("high")),
            known.get("method", ""),
            known.get("note") or "",
        )
        parts.append(part if known else _with_interval(part))
    return ScoredRun(run, tuple(parts))


@dataclass(frozen=True)
class Rate:
    """An error rate (a share) and its interval; NaN where there is none."""

    value: float
    low: float
    high: float
    errors: int
    n_ref: int
    utterances: int


def rate_of(pool: Sequence[tuple[Part, Utterance]]) -> Rate:
    """The error rate of some utterances, over speakers where all of them have one."""
    errors, n_ref = [u.errors for _, u in pool], [u.n_ref for _, u in pool]
    clusters = None
    if all(part.speakers for part, _ in pool):
        clusters = [(part.speakers or {})[u.id] for part, u in pool]
    interval = confidence_interval(errors, n_ref, clusters)
    total = sum(n_ref)
    rate = sum(errors) / total if total else math.nan
    return Rate(rate, interval.low, interval.high, sum(errors), total, len(pool))


def as_number(value: Any) -> float:
    """A number of a JSON value or of a cell; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _with_interval(part: Part) -> Part:
    interval = interval_of(part.rate, part.speakers)
    return replace(
        part,
        low=interval.low,
        high=interval.high,
        method=interval.method,
        note=interval.note,
    )
