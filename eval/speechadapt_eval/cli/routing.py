"""``speechadapt-eval routing``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechadapt_eval.cli.scoring import add_options, score_texts
from speechadapt_eval.cli.speakers import speakers_of
from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import read_side
from speechadapt_eval.outputs import as_json, write_csv, write_json
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.routes.routing import (
    Layer,
    Routed,
    layers,
    read_decisions,
    read_layers,
    routed,
)
from speechadapt_eval.transcripts.wer import ErrorRate

EXAMPLES = """
examples:
  speechadapt-eval routing decisions.jsonl --out tables
  speechadapt-eval routing decisions.jsonl --wer be=be.jsonl --wer ro=ro.jsonl      with regret
  speechadapt-eval routing fusion.npz --own be=belarusian

decisions.jsonl has one object a line, with the weights of all adapters or the one chosen:
  {"id": "u1", "condition": "be", "weights": {"be": 0.8, "ro": 0.2}}
  {"id": "u2", "condition": "ro", "adapter": "ro"}
fusion.npz has the arrays weights [layers, adapters, conditions], adapters, conditions (names).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``routing``."""
    add_options(parser)
    parser.add_argument("decisions", type=Path, metavar="DECISIONS")
    parser.add_argument(
        "--own",
        action="append",
        metavar="ADAPTER=CONDITION",
        help="which adapter is right for a condition; may be repeated (default: that of its name)",
    )
    parser.add_argument(
        "--wer",
        action="append",
        default=[],
        metavar="ADAPTER=UTTS",
        help="utts.jsonl of all utterances with that adapter, for the regret; may be repeated",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write routing.csv and .json")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    own = None
    if args.own is not None:
        own = {condition: adapter for adapter, condition in _pairs(args.own, "--own")}
    if args.decisions.suffix == ".npz":
        if args.wer:
            raise EvalError("--wer needs decisions of each utterance: a .npz has only mean weights")
        return _layers(args, layers(read_layers(args.decisions), own))
    found = routed(
        read_decisions(args.decisions),
        own=own,
        rates=dict(_rates(args)),
        speakers=speakers_of(args),
        samples=args.samples,
        seed=args.seed,
    )
    rows = list(map(_row, found))
    _write(args.out, rows, [asdict(one) for one in found])
    return as_json([asdict(one) for one in found]) if args.json else _page(found)


def _rates(args: argparse.Namespace) -> list[tuple[str, ErrorRate]]:
    rates = []
    for adapter, file in _pairs(args.wer, "--wer"):
        refs, hyps = (read_side(Path(file), column) for column in ("ref", "hyp"))
        rates.append((adapter, score_texts(args, refs.texts, hyps.texts, refs.languages)))
    return rates


def _pairs(given: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given]
    if bad := [text for text, (a, _, b) in zip(given, pairs, strict=True) if not a or not b]:
        raise EvalError(f"{option} {bad[0]!r}: write ADAPTER=NAME")
    return [(a, b) for a, _, b in pairs]


def _row(one: Routed) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": "", "condition": one.condition, "utterances": one.utterances}
    row |= {"top1": one.top1, "low": one.interval.low, "high": one.interval.high}
    row |= {"entropy": one.entropy, "own_weight": one.own}
    keys = ("delta", "low", "high")
    for key, name in zip(keys, ("regret", "regret_low", "regret_high"), strict=True):
        row[name] = getattr(one.regret, key) if one.regret else None
    row |= {f"chosen:{name}": count for name, count in one.chosen.items()}
    return row | {f"weight:{name}": share for name, share in one.weights.items()}


def _layers(args: argparse.Namespace, found: list[Layer]) -> str:
    rows = [
        {
            "layer": one.layer,
            "condition": one.condition,
            "top1": None if one.right is None else int(one.right),
            "entropy": one.entropy,
            "own_weight": one.own,
            "chosen": one.chosen,
        }
        | {f"weight:{name}": share for name, share in one.weights.items()}
        for one in found
    ]
    _write(args.out, rows, [asdict(one) for one in found])
    if args.json:
        return as_json([asdict(one) for one in found])
    known = [one.right for one in found if one.right is not None]
    table = render(
        ["layer", "condition", "chosen", "own weight", "entropy"],
        [
            [one.layer, one.condition, one.chosen, _number(one.own), _number(one.entropy)]
            for one in found
        ],
        align="lllrr",
    )
    return table + f"top-1: right in {sum(known)} of {len(known)} layers and conditions"


def _write(out: Path | None, rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    if out:
        write_csv(out / "routing.csv", list(rows[0]), [list(row.values()) for row in rows])
        write_json(out / "routing.json", found)


def _page(found: list[Routed]) -> str:
    adapters = list(found[0].chosen)
    lines = [
        render(
            ["condition", "utterances", "top-1 %", "95 % CI", "entropy", "own weight"],
            [
                [
                    one.condition,
                    str(one.utterances),
                    percent(one.top1),
                    percent_range(one.interval.low, one.interval.high),
                    _number(one.entropy),
                    _number(one.own),
                ]
                for one in found
            ],
        ),
        render(
            ["chosen", *adapters],
            [[one.condition, *(str(one.chosen[name]) for name in adapters)] for one in found],
        ),
    ]
    regrets = [
        [
            one.condition,
            percent(one.regret.delta, signed=True),
            percent_range(one.regret.low, one.regret.high, signed=True),
        ]
        for one in found
        if one.regret
    ]
    if regrets:
        lines.append(render(["regret", "points", "95 % CI"], regrets))
    notes = sorted({one.interval.note for one in found if one.interval.note})
    return "\n".join(lines) + "\n".join(f"Intervals: {note}." for note in notes)


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
