"""``speechadapt-eval run``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from speechadapt_eval.cli.options import add_bootstrap, add_json
from speechadapt_eval.errors import EvalError
from speechadapt_eval.outputs import as_json
from speechadapt_eval.record import run_record
from speechadapt_eval.runs.folder import Run
from speechadapt_eval.runs.runner import ON_ERROR, Options, run
from speechadapt_eval.runs.scoring import Scoring, render_figures, score_run, write_figures
from speechadapt_eval.runs.sets import read_sets
from speechadapt_eval.runs.systems.protocol import Settings
from speechadapt_eval.runs.systems.registry import parse_all
from speechadapt_eval.transcripts.normalize import NORMALIZERS
from speechadapt_eval.transcripts.wer import UNITS

EXAMPLES = """
examples:
  speechadapt-eval run --system speechadapt:openai/whisper-base \\
      --system "adapters=speechadapt:openai/whisper-base:exp/{lang}/adapter" \\
      --set data/be/test --set ro=data/ro/test --out exp/run1
  speechadapt-eval run --system "faster-whisper:models/base?beam_size=1" \\
      --system "cmd:./my_asr {wav}" --system "http:http://127.0.0.1:8000/v1?model=base" \\
      --system python:my_module:transcribe --set data/be/test --out exp/run2 --jobs 4

A set is a Kaldi data directory or a .jsonl with id, audio, and where known ref and lang. {lang}
becomes the language of the set. Start the same command again after a stop, or with one more system
or set: only what is new is computed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    add = parser.add_argument
    add(
        "--system",
        action="append",
        required=True,
        metavar="[NAME=]KIND:…",
        help="may be repeated; the first is what the others are compared with",
    )
    add(
        "--set",
        action="append",
        required=True,
        metavar="[NAME=]PATH",
        help="data directory or .jsonl; may be repeated",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--limit", type=_count, metavar="N", help="only the first N utterances of each set")
    add("--jobs", type=_count, default=1, metavar="N", help="clips at a time, for cmd and http (1)")
    add(
        "--one-by-one",
        action="store_true",
        help="measure latencies: no batches, one clip at a time",
    )
    add(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="of a clip, for cmd and http (600)",
    )
    add(
        "--on-error",
        choices=ON_ERROR,
        default="stop",
        help="when a clip fails: stop (default), or count an empty text and go on",
    )
    add("--cache", type=Path, metavar="DIR", help="results by content (default: OUT/cache)")
    add("--normalize", choices=list(NORMALIZERS), default="unicode", help="default: unicode")
    add("--unit", choices=list(UNITS), default="word", help="systems are compared by it (word)")
    add_bootstrap(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    began = perf_counter()
    if not args.timeout > 0:
        raise EvalError(f"--timeout {args.timeout:g}: give seconds above 0")
    scoring = Scoring(args.normalize, args.unit, args.samples, args.seed)
    specs = parse_all(args.system)
    sets = read_sets(args.set, args.limit)
    record = run_record(
        ["speechadapt-eval", *sys.argv[1:]],
        {"bootstrap": args.seed},
        normaliser=args.normalize,
        limit=args.limit,
        one_by_one=args.one_by_one,
        jobs=args.jobs,
    )
    options = Options(Settings(args.jobs, args.timeout), args.one_by_one, args.on_error)
    made = run(specs, sets, args.out, record, options, args.cache)
    figures = score_run(made, scoring)
    write_figures(made, figures)
    took = {"seconds": round(perf_counter() - began, 3)}
    Run(made.path, made.systems, made.sets, made.record | took).write()
    if args.json:
        return as_json(
            {
                "out": str(args.out),
                "systems": [asdict(system) for system in made.systems],
                "sets": [asdict(one) for one in made.sets],
                "wer": figures.wer,
                "pairs": figures.pairs,
                "speed": figures.speed,
                "notes": figures.notes,
            }
        )
    return render_figures(made, figures) + f"\nTables: {made.table_path('wer').parent}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
