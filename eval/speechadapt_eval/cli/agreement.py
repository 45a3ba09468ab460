"""``speechadapt-eval agreement``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, astuple
from pathlib import Path

from speechadapt_eval.cli.options import add_bootstrap, add_json
from speechadapt_eval.labels.agreement import agreement, read_predictions
from speechadapt_eval.outputs import as_json, write_csv
from speechadapt_eval.report.table import render
from speechadapt_eval.statistics.resample import INTERVAL

EXAMPLES = """
examples:
  speechadapt-eval agreement predictions.csv
  speechadapt-eval agreement predictions.csv --out exp/mos_head

The file has the columns id, predicted, rating (the mean opinion given), and perhaps system, for
figures of systems, and speaker, so that intervals resample speakers.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``agreement``."""
    parser.add_argument("predictions", type=Path, metavar="PRED.csv")
    add_bootstrap(parser, samples=1000)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write mospred.csv")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    found = agreement(read_predictions(args.predictions), samples=args.samples, seed=args.seed)
    if args.out is not None:
        write_csv(
            args.out / "mospred.csv",
            ("unit", "measure", "value", "n", *INTERVAL),
            [(a.unit, a.measure, a.value, a.n, *astuple(a.interval)) for a in found],
        )
    if args.json:
        return as_json([asdict(one) for one in found])
    rows = [
        [
            one.unit,
            one.measure,
            _number(one.value),
            f"[{_number(one.interval.low)}, {_number(one.interval.high)}]",
            "; ".join(filter(None, [one.interval.method, one.interval.note])),
        ]
        for one in found
    ]
    return render(("unit", "measure", "value", "95 % CI", "made by"), rows, align="llrrl")


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
