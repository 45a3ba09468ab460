"""``speechadapt-eval labels``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, astuple, fields
from pathlib import Path

import numpy as np

from speechadapt_eval.cli.options import add_bootstrap, add_json
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_kaldi_text, read_utt2spk
from speechadapt_eval.labels.calibration import Bin
from speechadapt_eval.labels.metrics import METRICS, ClassScores, confusion
from speechadapt_eval.labels.read import Labelled, join, read_answers, read_labels
from speechadapt_eval.labels.report import Report, evaluate
from speechadapt_eval.outputs import as_json, write_csv
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.resample import INTERVAL

EXAMPLES = """
examples:
  speechadapt-eval labels data/test/utt2category labels.jsonl --out exp/tagging
  speechadapt-eval labels data/test/utt2category hyp.txt --folds data/test/utt2fold
  speechadapt-eval labels scores.npz                      ids, probs and labels in one file

REF and HYP are lines 'utt label [label ...]', .jsonl with id and labels (a label, a list, or an
object of label and score, as 'speechadapt classify --format json' writes; ask for --top as many
as there are classes), or .npz with ids [items], classes [classes], labels and probs
[items, classes]. Items are matched by id.
"""

_WEAKEST = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labels``."""
    parser.add_argument("ref", type=Path, metavar="REF")
    parser.add_argument("hyp", type=Path, metavar="HYP", nargs="?", help="(default: REF, an .npz)")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="score from which a label is given, where items have any number of them (0.5)",
    )
    parser.add_argument(
        "--folds", type=Path, metavar="FILE", help="lines 'utt fold', of predefined folds"
    )
    parser.add_argument(
        "--utt2spk", type=Path, metavar="FILE", help="intervals resample these speakers"
    )
    parser.add_argument(
        "--bins", type=int, default=15, metavar="N", help="of the calibration error (15)"
    )
    add_bootstrap(parser, samples=1000)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write tagging.csv, tagging_class.csv, folds.csv, confusion.csv, calibration.csv",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    if args.hyp is None and args.ref.suffix != ".npz":
        raise EvalError(f"{args.ref} holds the references only: give the answers as HYP")
    if args.bins < 1:
        raise EvalError(f"--bins {args.bins}: give 1 or more")
    labelled = join(read_labels(args.ref), read_answers(args.hyp or args.ref), args.threshold)
    report = evaluate(
        labelled,
        folds=None if args.folds is None else read_kaldi_text(args.folds),
        speakers=None if args.utt2spk is None else read_utt2spk(args.utt2spk),
        samples=args.samples,
        seed=args.seed,
        bins=args.bins,
    )
    if args.out is not None:
        _write(args.out, labelled, report)
    if args.json:
        return as_json(asdict(report) | {"extra": labelled.extra})
    return "\n".join(_lines(labelled, report))


def _lines(labelled: Labelled, report: Report) -> list[str]:
    kind = "one label each" if report.one_each else "any number of labels each"
    lines = [f"{report.items} items, {kind}, {len(report.classes)} classes", ""]
    rows = [
        [
            figure.metric,
            percent(figure.value),
            percent_range(figure.interval.low, figure.interval.high),
            figure.interval.note or figure.interval.method,
        ]
        for figure in report.figures
        if not math.isnan(figure.value)
    ]
    lines.append(render(("%", "all", "95 % CI", "made by"), rows, align="lrrl"))
    lines += [_folds_table(report)] if report.folds else []
    weakest = sorted((c for c in report.classes if c.positives), key=lambda c: c.f1)[:_WEAKEST]
    rows = [
        [c.label, str(c.positives), str(c.answered)]
        + [percent(value) for value in (c.precision, c.recall, c.f1, c.average_precision)]
        for c in weakest
    ]
    header = ("weakest classes", "have it", "given it", "precision", "recall", "F1", "AP")
    lines.append(render(header, rows))
    lines += _remarks(labelled, report)
    return lines


def _folds_table(report: Report) -> str:
    rows = [
        [fold.name, str(fold.items), *(percent(fold.values[name]) for name in METRICS)]
        for fold in report.folds
    ]
    overall = [report.over_folds(name) for name in METRICS]
    rows.append(["mean ± sd", "", *(f"{percent(mean)} ± {percent(sd)}" for mean, sd in overall)])
    return render(("fold", "items", *METRICS), rows)


def _remarks(labelled: Labelled, report: Report) -> list[str]:
    found = report.calibration
    if found.reason:
        lines = [f"Calibration: none, {found.reason}."]
    else:
        lines = [f"ECE {percent(found.ece)} ({found.of}, {len(found.bins)} bins)"]
    if report.without_positives:
        lines.append(f"In no reference, so in no mean: {some(report.without_positives)}.")
    if labelled.extra:
        lines.append(f"{labelled.extra} answers have no reference and were left out.")
    return lines


def _write(folder: Path, labelled: Labelled, report: Report) -> None:
    sizes = (report.items, len(report.classes))
    rows: list[tuple[object, ...]] = [
        (f.metric, f.value, *sizes, *astuple(f.interval)) for f in report.figures
    ]
    rows.append(("ece", report.calibration.ece, *sizes, *[""] * len(INTERVAL)))
    header = ("metric", "value", "items", "classes", *INTERVAL)
    write_csv(folder / "tagging.csv", header, rows)
    write_csv(
        folder / "tagging_class.csv",
        [field.name for field in fields(ClassScores)],
        [astuple(scores) for scores in report.classes],
    )
    bins = [astuple(one) for one in report.calibration.bins]
    write_csv(folder / "calibration.csv", [field.name for field in fields(Bin)], bins)
    if report.folds:
        overall = np.array([report.over_folds(name) for name in METRICS]).T.tolist()
        rows = [(fold.name, fold.items, *fold.values.values()) for fold in report.folds]
        rows += [("mean", report.items, *overall[0]), ("sd", report.items, *overall[1])]
        write_csv(folder / "folds.csv", ("fold", "items", *METRICS), rows)
    if labelled.one_each:
        columns, counts = confusion(labelled)
        rows = [(name, *row) for name, row in zip(columns, counts.tolist(), strict=False)]
        write_csv(folder / "confusion.csv", ("reference", *columns), rows)
