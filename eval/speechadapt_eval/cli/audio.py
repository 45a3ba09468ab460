"""``speechadapt-eval audio``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from speechadapt_eval.audio.paired import (
    METRICS,
    STANDARD,
    PairScores,
    compare,
    match,
    mean_values,
)
from speechadapt_eval.audio.sources import find_sources
from speechadapt_eval.cli.options import add_json
from speechadapt_eval.outputs import as_json, write_csv
from speechadapt_eval.report.table import render

EXAMPLES = """
examples:
  speechadapt-eval audio clean/ noisy/
  speechadapt-eval audio data/test data/test_enhanced --with pesq --out exp/enhanced
  speechadapt-eval audio clean.wav coded.wav

Each side is a file, a folder, a Kaldi data directory or a .jsonl with id and audio; ids (names of
files) are matched. The two of a pair must run in step. si_sdr is in dB, stoi 0 to 1, pesq and
visqol are predicted opinions up to 5. pip install 'speechadapt[pesq]' needs a C compiler; ViSQOL
is pip install visqol-python.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``audio``."""
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="clean audio")
    parser.add_argument("degraded", type=Path, metavar="DEGRADED", help="noisy, coded, enhanced")
    parser.add_argument(
        "--with",
        dest="extra",
        action="append",
        default=[],
        choices=[name for name in METRICS if name not in STANDARD],
        help="as well; may be repeated",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write intrusive.csv")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    pairs = match(find_sources([args.reference]), find_sources([args.degraded]))
    metrics = (*STANDARD, *dict.fromkeys(args.extra))
    rows = list(tqdm(compare(pairs, metrics), "audio", len(pairs), unit="pair", disable=None))
    if args.out is not None:
        write_csv(
            args.out / "intrusive.csv",
            ("id", "group", "seconds", *metrics, "reason"),
            [(row.id, row.group, row.seconds, *row.values.values(), _reason(row)) for row in rows],
        )
    means = {name: mean_values(rows, name) for name in metrics}
    if args.json:
        return as_json(
            {
                "means": {name: {"mean": mean, "n": n} for name, (mean, n) in means.items()},
                "pairs": [asdict(row) for row in rows],
            }
        )
    table = [
        [row.id, _number(row.seconds), *map(_number, row.values.values()), _reason(row)]
        for row in rows
    ]
    lines = [render(("id", "seconds", *metrics, "reason"), table, align=_align(metrics))]
    for name, (mean, n) in means.items():
        left_out = f", {len(rows) - n} without" if n < len(rows) else ""
        lines.append(f"{name}: mean {_number(mean)} over {n} pairs{left_out}")
    return "\n".join(lines)


def _reason(row: PairScores) -> str:
    """One text; a reason that all metrics share is said once."""
    if len(row.reasons) == len(row.values) and len(set(row.reasons.values())) == 1:
        return next(iter(row.reasons.values()))
    return "; ".join(f"{name}: {reason}" for name, reason in row.reasons.items())


def _align(metrics: Sequence[str]) -> str:
    return "lr" + "r" * len(metrics) + "l"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
