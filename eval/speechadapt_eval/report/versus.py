"""Two runs compared: what differs in their figures, and in how they were made."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from speechadapt_eval.report.alignment import clip
from speechadapt_eval.report.scored import Part, ScoredRun
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import Paired, paired_difference
from speechadapt_eval.transcripts.wer import ErrorRate

HEADER = ("system", "set", "A %", "B %", "Δ", "Δ 95 % CI", "P(B better)", "utterances")
ALIGN = "llrrrrrr"
FACTS = ("made with", "A", "B")
_WIDE = 60  # letters of a fact in a terminal; the pages have all of it
# Of a run's record: these differ between any two runs and explain nothing.
_OWN = ("started", "seconds", "machine.load_average")


@dataclass(frozen=True)
class Change:
    """One system on one set in both runs.

    Attributes:
        system: Its name; ``A → B`` where the runs call it differently.
        a: What run A has.
        b: What run B has.
        rates: Error rates of A and B on the utterances that were compared (all of each, where
            nothing can be compared).
        paired: The difference of the two; None where nothing can be compared.
        utterances: How many were compared: both have them, with the same reference.
        note: What was left out, or why nothing can be compared.
    """

    system: str
    a: Part
    b: Part
    rates: tuple[float, float]
    paired: Paired | None
    utterances: int
    note: str = ""

    def cells(self) -> list[str]:
        """The change as text, in the order of ``HEADER``."""
        rates = [self.system, self.a.set, *map(percent, self.rates)]
        if self.paired is None:
            return [*rates, "n/a", "n/a", "n/a", "0"]
        paired = self.paired
        better = "n/a" if math.isnan(paired.p_improvement) else f"{paired.p_improvement:.3f}"
        return [
            *rates,
            percent(paired.delta, signed=True),
            percent_range(paired.low, paired.high, signed=True),
            better,
            f"{self.utterances:,}",
        ]


@dataclass(frozen=True)
class Comparison:
    """Run B against run A.

    Attributes:
        a: The run to compare with.
        b: The run of interest.
        changes: What both have, in the order of B.
        added: What only B has, e.g. ``system 'x'``.
        removed: What only A has.
        facts: What differs in how they were made: name, value of A, value of B.
    """

    a: ScoredRun
    b: ScoredRun
    changes: tuple[Change, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    facts: tuple[tuple[str, str, str], ...]

    @property
    def notes(self) -> list[str]:
        """What the differences do not say, each sentence once."""
        said: dict[str, list[str]] = {}
        for change in self.changes:
            where = f"{change.system} on {change.a.set}"
            if change.note:
                said.setdefault(change.note, []).append(where)
            if paired := change.paired:
                way = f"CI: {paired.method}" + (f"; {paired.note}" if paired.note else "")
                said.setdefault(way, []).append(where)
        return [
            f"{note} ({', '.join(places[:3])}{f' and {rest} more' if rest > 0 else ''})."
            for note, places in said.items()
            for rest in (len(places) - 3,)
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: shares, not percent."""
        return {
            "a": str(self.a.run.path),
            "b": str(self.b.run.path),
            "changes": [
                {
                    "system": change.system,
                    "set": change.a.set,
                    "rate_a": change.rates[0],
                    "rate_b": change.rates[1],
                    "delta": change.paired.delta if change.paired else None,
                    "low": change.paired.low if change.paired else None,
                    "high": change.paired.high if change.paired else None,
                    "p_improvement": change.paired.p_improvement if change.paired else None,
                    "utterances": change.utterances,
                    "note": change.note,
                }
                for change in self.changes
            ],
            "added": list(self.added),
            "removed": list(self.removed),
            "facts": [{"name": n, "a": a, "b": b} for n, a, b in self.facts],
        }


def compare_runs(a: ScoredRun, b: ScoredRun) -> Comparison:
    """Compare two runs, system by system and set by set.

    Systems are matched by name; where each run has only one, these two are compared. What is
    compared are the utterances that both runs have, with the same reference.
    """
    others = {name: name for name in b.systems if name in a.systems}
    if not others and len(a.systems) == len(b.systems) == 1:
        others = {b.systems[0]: a.systems[0]}
    changes = []
    for part in b.parts:
        before = a.part(others.get(part.system, ""), part.set)
        if before is not None:
            changes.append(_change(before, part))
    added = _named("system", b.systems, others) + _named("set", b.sets, a.sets)
    removed = _named("system", a.systems, others.values()) + _named("set", a.sets, b.sets)
    return Comparison(a, b, tuple(changes), added, removed, _differing(a, b))


def render_comparison(comparison: Comparison) -> str:
    """The comparison for a terminal: a table, what only one run has, how the two were made."""
    parts = []
    if comparison.changes:
        rows = [change.cells() for change in comparison.changes]
        parts.append(render(HEADER, rows, align=ALIGN))
    else:
        parts.append("The runs have no system and set in common.\n")
    parts += [f"{note}\n" for note in comparison.notes]
    for what, names in (("Only in B", comparison.added), ("Only in A", comparison.removed)):
        if names:
            parts.append(f"{what}: {', '.join(names)}\n")
    if comparison.facts:
        facts = [[clip(text, _WIDE) for text in fact] for fact in comparison.facts]
        parts.append(render(FACTS, facts, align="lll"))
    else:
        parts.append("Both were made with the same versions and settings.\n")
    return "\n".join(parts)


def flat(facts: Any, name: str = "") -> dict[str, str]:
    """Nested facts as one text each: ``{"machine": {"cores": 2}}`` is ``machine.cores: 2``."""
    if isinstance(facts, Mapping):
        inner = [flat(value, f"{name}.{key}" if name else str(key)) for key, value in facts.items()]
        return {key: text for part in inner for key, text in part.items()}
    if isinstance(facts, list):
        joined = shlex.join(map(str, facts)) if name == "command" else ", ".join(map(str, facts))
        return {name: joined or "–"}
    return {name: "–" if facts is None else str(facts)}


def _change(a: Part, b: Part) -> Change:
    system = b.system if a.system == b.system else f"{a.system} → {b.system}"
    rates = a.rate.rate, b.rate.rate
    if (a.rate.unit, a.rate.normalize) != (b.rate.unit, b.rate.normalize):
        note = (
            f"A counts {a.rate.unit}s normalised as {a.rate.normalize!r}, B {b.rate.unit}s "
            f"normalised as {b.rate.normalize!r}: not compared"
        )
        return Change(system, a, b, rates, None, 0, note)
    before = {u.id: u.ref for u in a.rate.utterances}
    same = {u.id for u in b.rate.utterances if before.get(u.id) == u.ref}
    every = len(before.keys() | {u.id for u in b.rate.utterances})
    note = ""
    if len(same) < every:
        note = f"{every - len(same):,} utterances are in one run only or have another reference"
    if not same:
        return Change(system, a, b, rates, None, 0, f"{note}: not compared")
    one, two = _only(a.rate, same), _only(b.rate, same)
    paired = paired_difference(one, two, b.speakers)
    return Change(system, a, b, (one.rate, two.rate), paired, len(same), note)


def _only(rate: ErrorRate, ids: Set[str]) -> ErrorRate:
    return replace(rate, utterances=tuple(u for u in rate.utterances if u.id in ids))


def _named(kind: str, names: Any, others: Any) -> tuple[str, ...]:
    return tuple(f"{kind} {name!r}" for name in names if name not in others)


def _differing(a: ScoredRun, b: ScoredRun) -> tuple[tuple[str, str, str], ...]:
    facts = []
    for scored in (a, b):
        record = {k: v for k, v in flat(scored.run.record).items() if k not in _OWN}
        specs = {f"system {system.name}": system.spec for system in scored.run.systems}
        sets = {f"set {one.name}": one.path for one in scored.run.sets}
        facts.append(record | specs | sets)
    names = dict.fromkeys([*facts[0], *facts[1]])
    pairs = ((name, facts[0].get(name, "–"), facts[1].get(name, "–")) for name in names)
    return tuple((name, x, y) for name, x, y in pairs if x != y)
