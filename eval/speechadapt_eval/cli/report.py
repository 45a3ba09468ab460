"""``speechadapt-eval report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechadapt_eval.errors import EvalError
from speechadapt_eval.outputs import as_json
from speechadapt_eval.report.run_report import WORST, Report
from speechadapt_eval.report.scored import read_run
from speechadapt_eval.report.versus import compare_runs, render_comparison

_EMBED = 20  # MB
EXAMPLES = """
examples:
  speechadapt-eval report exp/eval
  speechadapt-eval report exp/eval --show frozen be --worst 20 --embed-audio
  speechadapt-eval report exp/monday exp/tuesday --out exp/changes

RUN is a folder that speechadapt-eval run made. Written are report.html (one file that needs
nothing else), report.md, and the numbers of every plot as plots/NAME.csv and NAME.json.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    parser.add_argument("run_a", type=Path, metavar="RUN")
    parser.add_argument(
        "run_b", type=Path, metavar="RUN_B", nargs="?", help="report this run, compared with RUN"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder of the run reported"
    )
    parser.add_argument(
        "--show",
        nargs="+",
        default=[],
        metavar="SYSTEM",
        help="transcripts of these side by side, the system of interest last (default: all; of "
        "more than four, the first and the last)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=WORST,
        metavar="N",
        help=f"utterances in each list of transcripts ({WORST}); fewer where they are very long",
    )
    parser.add_argument(
        "--embed-audio",
        type=float,
        nargs="?",
        const=_EMBED,
        default=0.0,
        metavar="MB",
        help=f"put recordings into the page, up to so many megabytes in all (if bare: {_EMBED})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: the files, the comparison"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    if args.worst < 0 or not args.embed_audio >= 0:
        raise EvalError("--worst and --embed-audio cannot be negative: 0 shows or embeds none")
    run = read_run(args.run_b or args.run_a)
    against = compare_runs(read_run(args.run_a), run) if args.run_b else None
    report = Report(run, against, args.show, args.worst, int(args.embed_audio * 1e6))
    files = report.write(args.out or run.run.path)
    if args.json:
        found = {"files": [str(path) for path in files]}
        return as_json(found | ({"comparison": against.as_dict()} if against else {}))
    written = "\n".join(map(str, files))
    return f"{render_comparison(against)}\n{written}" if against else written
