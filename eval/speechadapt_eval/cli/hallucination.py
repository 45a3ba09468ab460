"""``speechadapt-eval hallucination``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechadapt_eval.cli.scoring import (
    FILES,
    PooledSets,
    add_fields,
    add_options,
    read_sets,
    score_texts,
)
from speechadapt_eval.errors import EvalError
from speechadapt_eval.outputs import as_json, write_csv
from speechadapt_eval.report.table import percent, render
from speechadapt_eval.transcripts.hallucination import Hallucination, hallucination

EXAMPLES = f"""
examples:
  speechadapt-eval hallucination data/test/text exp/frozen/text exp/adapted/text
  speechadapt-eval hallucination utts.jsonl utts.jsonl --json
  speechadapt-eval hallucination ref.txt hyp.txt --field duration utt2dur --out exp/scores
{FILES}
Non-speech clips are those whose reference is empty once normalised, or whose field 'nonspeech' is
true. --out writes hallucination.csv.
"""
RATES = (
    "output_share", "tokens_per_minute", "runs_per_100", "loop_share", "long_share", "empty_share",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``hallucination``."""
    add_options(parser, resampled=False)
    add_fields(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write hallucination.csv there")
    parser.add_argument("ref", type=Path, metavar="REF")
    parser.add_argument("hyps", type=Path, nargs="+", metavar="HYP", help="one of each system")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    sets = read_sets(args, [(args.ref, *args.hyps)])
    marks = sets.values("nonspeech")
    flagged = {name for name, mark in marks.items() if mark in (True, "true")}  # a table has 1.0
    refs = {name: "" if name in flagged else text for name, text in sets.texts[0].items()}
    durations = _durations(sets)
    systems = {}
    for path, hyps in zip(args.hyps, sets.texts[1:], strict=True):
        if str(path) in systems:
            raise EvalError(f"{path} is given twice: each system needs a file of its own")
        rate = score_texts(args, refs, hyps, sets.languages)
        systems[str(path)] = hallucination(rate, durations)
    rows = {name: _facts(found) for name, found in systems.items()}
    if args.out:
        header = ["system", *next(iter(rows.values()))]
        cells = [[name, *row.values()] for name, row in rows.items()]
        write_csv(args.out / "hallucination.csv", header, cells)
    if args.json:
        return as_json(rows)
    return _table(systems)


def _table(systems: dict[str, Hallucination]) -> str:
    first = next(iter(systems.values()))
    header = (
        "system", "% with output", "tokens/min", "runs/100", "% loops", "% too long", "% empty"
    )  # fmt: skip
    rows = [
        (name, percent(h.output_share), _number(h.tokens_per_minute), _number(h.runs_per_100),
         percent(h.loop_share), percent(h.long_share), percent(h.empty_share))
        for name, h in systems.items()
    ]  # fmt: skip
    notes = f"{first.nonspeech} non-speech clips, {first.speech} utterances with speech."
    if first.nonspeech and math.isnan(first.nonspeech_seconds):
        notes += " Tokens per minute need the duration of every non-speech clip."
    return render(header, rows) + notes


def _facts(found: Hallucination) -> dict[str, Any]:
    return asdict(found) | {name: getattr(found, name) for name in RATES}


def _durations(sets: PooledSets) -> dict[str, float]:
    durations = {}
    for name, value in sets.values("duration").items():
        if value is None:
            continue
        try:
            durations[name] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise EvalError(f"duration of utterance {name!r} is {value!r}, not seconds") from error
    return durations


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
