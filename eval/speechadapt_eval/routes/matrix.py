"""Which adapter on which test set: error rates, regret of not knowing, backward transfer.

A row is a system: the frozen base, an adapter, or a system that chooses or combines by itself.
Two more rows are made from these. ``oracle`` uses on each set the adapter trained for it (the
base where there is none): what a user gets who names the condition. ``best`` takes for each
utterance whichever of base and adapters made the fewest errors: it looks at the references, so
no system can be asked to reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tqdm import tqdm

from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import (
    Interval,
    Paired,
    interval_of,
    paired_difference,
)
from speechadapt_eval.transcripts.wer import ErrorRate, require_same_utterances

ORACLE, BEST, ALL = "oracle", "best", "all"


@dataclass(frozen=True)
class Cell:
    """One system on one set.

    Attributes:
        row: Name of the system.
        kind: ``base``, ``adapter``, ``auto``, ``oracle`` or ``best``.
        set: Name of the test set; ``all`` for the utterances of all sets together.
        rate: Its errors.
        interval: Of the error rate.
        delta: Difference to the base (negative: better); None without a base.
        against: What the regret is measured against: ``oracle`` for a system that chooses by
            itself, ``best`` for the oracle; empty for others.
        regret: Difference to that row (positive: worse).
    """

    row: str
    kind: str
    set: str
    rate: ErrorRate
    interval: Interval
    delta: Paired | None
    against: str
    regret: Paired | None


@dataclass(frozen=True)
class Matrix:
    """The cells, row by row, and what follows from them.

    Attributes:
        cells: Those that were measured or could be made.
        backward_transfer: Of each system that chooses by itself, a share; see ``build``.
    """

    cells: tuple[Cell, ...]
    backward_transfer: dict[str, float]

    def cell(self, row: str, name: str) -> Cell | None:
        """The cell of a row and a set, if there is one."""
        found = [cell for cell in self.cells if (cell.row, cell.set) == (row, name)]
        return found[0] if found else None

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in order, ``all`` last."""
        return sorted(dict.fromkeys(cell.set for cell in self.cells), key=lambda name: name == ALL)


def build(
    rates: Mapping[tuple[str, str], ErrorRate],
    *,
    base: str | None = None,
    autos: Sequence[str] = (),
    own: Mapping[str, str] | None = None,
    speakers: Mapping[str, str] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> Matrix:
    """Make the matrix.

    Backward transfer (Lopez-Paz and Ranzato 2017, arXiv:1706.08840) asks what having learned
    everything does to each task: the mean over sets with an adapter of their own of
    ``R(auto, set) − R(own adapter, set)``, where R is 1 − error rate. Negative: forgetting.

    Args:
        rates: ``(system, set)`` to errors.
        base: The frozen base, if it was run.
        autos: Systems that choose or combine adapters by themselves.
        own: Set to the adapter trained for it; by default the one of the same name.
        speakers: Utterance id to speaker, for the intervals.
        samples: Bootstrap replicates.
        seed: Of the resampling.

    Raises:
        EvalError: A name is not there or reserved, or systems saw different utterances of a set.
    """
    systems = list(dict.fromkeys(row for row, _ in rates))
    sets = list(dict.fromkeys(name for _, name in rates))
    adapters = [name for name in systems if name != base and name not in autos]
    trained = {name: name for name in adapters} if own is None else dict(own)
    for kind, names, known in (
        ("base", [] if base is None else [base], systems),
        ("auto", autos, systems),
        ("adapter", trained.values(), adapters),
        ("set", [] if own is None else trained, sets),
    ):
        if odd := [name for name in names if name not in known]:
            raise EvalError(f"{kind} {odd[0]!r} was not measured: there are {', '.join(known)}")
    if made := ({ORACLE, BEST} & set(systems)) | ({ALL} & set(sets)):
        raise EvalError(f"{made.pop()!r} is a row or column that is made here: rename yours")
    for name in sets:
        first, *others = (rate for (_, other), rate in rates.items() if other == name)
        for other in others:
            require_same_utterances(first, other)

    kinds = {} if base is None else {base: "base"}
    kinds |= dict.fromkeys(adapters, "adapter") | dict.fromkeys(autos, "auto")
    kinds |= {ORACLE: "oracle", BEST: "best"}
    table = dict(rates)
    for name in sets:
        named = trained.get(name, base)
        if named is not None and (named, name) in table:
            table[ORACLE, name] = table[named, name]
        if choices := [
            table[row, name]
            for row, kind in kinds.items()
            if kind in ("base", "adapter") and (row, name) in table
        ]:
            table[BEST, name] = best_of(choices)
    for row in kinds:
        if len(sets) > 1 and all((row, name) in table for name in sets):
            table[row, ALL] = pool({name: table[row, name] for name in sets})

    keys = [(row, name) for row in kinds for name in [*sets, ALL] if (row, name) in table]
    cells = []
    for row, name in tqdm(keys, desc="matrix", unit="cell", leave=False, disable=None):
        kind, rate = kinds[row], table[row, name]
        against = {"auto": ORACLE, "oracle": BEST}.get(kind, "")
        clusters = _speakers_of(rate, speakers, name)
        delta, regret = (
            paired_difference(table[standard, name], rate, clusters, samples=samples, seed=seed)
            if (standard, name) in table
            else None
            for standard in ("" if kind == "base" else base or "", against)
        )
        interval = interval_of(rate, clusters, samples=samples, seed=seed)
        cells.append(Cell(row, kind, name, rate, interval, delta, against, regret))
    transfer = {auto: _transfer(table, auto, trained, sets) for auto in autos}
    return Matrix(tuple(cells), transfer)


def best_of(rates: Sequence[ErrorRate]) -> ErrorRate:
    """For each utterance the one with the fewest errors, the first of several."""
    chosen = zip(*(rate.utterances for rate in rates), strict=True)
    return replace(rates[0], utterances=tuple(min(u, key=lambda u: u.errors) for u in chosen))


def pool(rates: Mapping[str, ErrorRate]) -> ErrorRate:
    """All utterances of several sets; the id of each gets the set's name in front: ``set/id``."""
    utterances = [
        replace(utterance, id=f"{name}/{utterance.id}")
        for name, rate in rates.items()
        for utterance in rate.utterances
    ]
    first = next(iter(rates.values()))
    return replace(first, utterances=tuple(sorted(utterances, key=lambda u: u.id)))


def right_or_wrong(rate: ErrorRate) -> ErrorRate:
    """Take each whole text as one label: an utterance is right, or it is one error.

    The error rate is then 1 − accuracy.
    """
    return replace(
        rate,
        unit="label",
        utterances=tuple(
            replace(u, hits=int(u.ref == u.hyp), substitutions=int(u.ref != u.hyp))
            for u in (replace(u, deletions=0, insertions=0) for u in rate.utterances)
        ),
    )


def _speakers_of(
    rate: ErrorRate, speakers: Mapping[str, str] | None, name: str
) -> dict[str, str] | None:
    if speakers is None:
        return None
    ids: Iterable[tuple[str, str]] = ((u.id, u.id) for u in rate.utterances)
    if name == ALL:
        ids = ((u.id, u.id.partition("/")[2]) for u in rate.utterances)
    return {pooled: speakers[plain] for pooled, plain in ids if plain in speakers}


def _transfer(
    table: Mapping[tuple[str, str], ErrorRate],
    auto: str,
    trained: Mapping[str, str],
    sets: Sequence[str],
) -> float:
    changes = [
        table[trained[name], name].rate - table[auto, name].rate
        for name in sets
        if (auto, name) in table and (trained.get(name, ""), name) in table
    ]
    return fmean(changes) if changes else math.nan
