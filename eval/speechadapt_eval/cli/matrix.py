"""``speechadapt-eval matrix``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechadapt_eval.cli.scoring import add_options, score_texts
from speechadapt_eval.cli.speakers import speakers_of
from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import read_utts
from speechadapt_eval.outputs import as_json, write_csv, write_json
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.routes.matrix import ALL, Cell, Matrix, build, right_or_wrong
from speechadapt_eval.transcripts.wer import ErrorRate

EXAMPLES = """
examples:
  speechadapt-eval matrix --base frozen --auto auto RUN/hyps/*/*.jsonl --out RUN/tables
  speechadapt-eval matrix --base frozen --own be=be_test frozen/be_test=a.jsonl be/be_test=b.jsonl
  speechadapt-eval matrix --accuracy --base frozen keywords/*/*.jsonl

Each file is utts.jsonl of one system on one set: SYSTEM/SET.jsonl, or SYSTEM/SET=FILE.
"""

_COLUMNS = (
    "row", "kind", "set", "metric", "value", "low", "high", "errors", "n_ref", "utterances",
    "method", "delta", "delta_low", "delta_high", "against", "regret", "regret_low",
    "regret_high", "p_improvement",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``matrix``."""
    add_options(parser)
    parser.add_argument("cells", nargs="+", metavar="[SYSTEM/SET=]FILE")
    parser.add_argument("--base", metavar="SYSTEM", help="the frozen base: all are compared to it")
    parser.add_argument(
        "--auto",
        action="append",
        default=[],
        metavar="SYSTEM",
        help="a system that chooses or combines adapters by itself; may be repeated",
    )
    parser.add_argument(
        "--own",
        action="append",
        metavar="ADAPTER=SET",
        help="the set an adapter was trained for; may be repeated (default: that of its name)",
    )
    parser.add_argument(
        "--accuracy", action="store_true", help="texts are labels: right or wrong as a whole"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write matrix.csv and matrix.json")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    rates: dict[tuple[str, str], ErrorRate] = {}
    speakers: dict[str, str] = {}
    lost = False
    for cell in args.cells:
        row, name, path = _place(cell)
        if (row, name) in rates:
            raise EvalError(f"{path}: system {row!r} on set {name!r} was given twice")
        rate, spoken = _read(args, path)
        rates[row, name] = rate
        lost |= len(spoken) < len(rate.utterances)
        speakers |= spoken
    matrix = build(
        rates,
        base=args.base,
        autos=args.auto,
        own=_own(args.own),
        speakers=speakers_of(args) or (None if lost else speakers),
        samples=args.samples,
        seed=args.seed,
    )
    metric = "accuracy" if args.accuracy else next(iter(rates.values())).name.lower()
    rows = [_row(cell, metric) for cell in matrix.cells]
    found = {
        "metric": metric,
        "cells": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        "backward_transfer": matrix.backward_transfer,
    }
    if args.out:
        write_csv(args.out / "matrix.csv", _COLUMNS, rows)
        write_json(args.out / "matrix.json", found)
    return as_json(found) if args.json else _page(matrix, metric)


def _place(cell: str) -> tuple[str, str, Path]:
    """System, set and file of ``SYSTEM/SET=FILE`` or ``…/SYSTEM/SET.jsonl``."""
    place, equals, file = cell.partition("=")
    if not equals:
        path = Path(cell)
        row, name = path.parent.name, path.stem
    else:
        path = Path(file)
        row, _, name = place.partition("/")
    if not row or not name:
        raise EvalError(f"{cell!r} names no system and set: write SYSTEM/SET=FILE")
    return row, name, path


def _read(args: argparse.Namespace, path: Path) -> tuple[ErrorRate, dict[str, str]]:
    """The errors in a file, and the speakers it names."""
    refs, hyps, speakers, languages = {}, {}, {}, {}
    for name, row in read_utts(path).items():
        if row.ref is None or row.hyp is None:
            missing = "ref" if row.ref is None else "hyp"
            raise EvalError(f"{path}: utterance {name!r} has no {missing!r}")
        refs[name], hyps[name] = row.ref, row.hyp
        if isinstance(row.fields.get("speaker"), str):
            speakers[name] = row.fields["speaker"]
        if row.lang:
            languages[name] = row.lang
    rate = score_texts(args, refs, hyps, languages)
    return (right_or_wrong(rate) if args.accuracy else rate), speakers


def _own(pairs: list[str] | None) -> dict[str, str] | None:
    if pairs is None:
        return None
    own = {}
    for pair in pairs:
        adapter, equals, name = pair.partition("=")
        if not equals or not adapter or not name:
            raise EvalError(f"--own {pair!r}: write ADAPTER=SET")
        own[name] = adapter
    return own


def _row(cell: Cell, metric: str) -> list[Any]:
    value, low, high = cell.rate.rate, cell.interval.low, cell.interval.high
    if metric == "accuracy":
        value, low, high = 1 - value, 1 - high, 1 - low
    delta = asdict(cell.delta) if cell.delta else {}
    regret = asdict(cell.regret) if cell.regret else {}
    return [
        cell.row, cell.kind, cell.set, metric, value, low, high, cell.rate.errors,
        cell.rate.n_ref, len(cell.rate.utterances), cell.interval.method,
        *(delta.get(key) for key in ("delta", "low", "high")),
        cell.against if cell.regret else "",
        *(regret.get(key) for key in ("delta", "low", "high")), delta.get("p_improvement"),
    ]  # fmt: skip


def _page(matrix: Matrix, metric: str) -> str:
    title = "accuracy %" if metric == "accuracy" else f"%{metric.upper()}"
    rows = []
    for row in matrix.rows:
        cells = [matrix.cell(row, name) for name in matrix.sets]
        rates = [math.nan if cell is None else cell.rate.rate for cell in cells]
        rows.append([row, *(percent(1 - r if metric == "accuracy" else r) for r in rates)])
    lines = [render([title, *matrix.sets], rows)]
    regrets = [cell for cell in matrix.cells if cell.regret]
    if regrets:
        whole = ALL in matrix.sets
        lines.append(
            render(
                ["regret", "against", "set", "points", "95 % CI"],
                [
                    [
                        cell.row,
                        cell.against,
                        cell.set,
                        percent(cell.regret.delta, signed=True),
                        percent_range(cell.regret.low, cell.regret.high, signed=True),
                    ]
                    for cell in regrets
                    if cell.regret and (not whole or cell.kind == "auto" or cell.set == ALL)
                ],
                align="lllrr",
            )
        )
    for auto, transfer in matrix.backward_transfer.items():
        lines.append(f"backward transfer of {auto}: {percent(transfer, signed=True)} points")
    notes = {cell.interval.note for cell in matrix.cells if cell.interval.note}
    lines += [f"Intervals: {note}." for note in sorted(notes)]
    return "\n".join(line.rstrip("\n") if i else line for i, line in enumerate(lines))
