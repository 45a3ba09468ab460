"""``speechadapt-eval preserve``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechadapt_eval.cli.scoring import add_options, score_texts
from speechadapt_eval.cli.speakers import speakers_of
from speechadapt_eval.errors import some
from speechadapt_eval.io import read_side, read_texts
from speechadapt_eval.outputs import as_json, write_json
from speechadapt_eval.report.table import percent, percent_range
from speechadapt_eval.routes.preserve import (
    Outputs,
    Task,
    Transcripts,
    Weights,
    compare_outputs,
    compare_transcripts,
    compare_weights,
)
from speechadapt_eval.routes.tensors import read_arrays, read_tensors
from speechadapt_eval.statistics.bootstrap import paired_difference

EXAMPLES = """
examples:
  speechadapt-eval preserve base/ adapted/
  speechadapt-eval preserve before.safetensors after.safetensors --off-route a.npz b.npz \\
      --transcripts a.txt b.txt --task en ref.txt base.txt adapted.txt --out tables

BEFORE and AFTER are safetensors files, or folders of them. Outputs are .npz, .npy or .safetensors.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``preserve``."""
    add_options(parser)
    parser.add_argument("before", type=Path, metavar="BEFORE")
    parser.add_argument("after", type=Path, metavar="AFTER")
    both = ("BEFORE", "AFTER")
    parser.add_argument(
        "--off-route", nargs=2, type=Path, metavar=both, help="outputs with the adapters off"
    )
    parser.add_argument(
        "--transcripts", nargs=2, type=Path, metavar=both, help="texts with the adapters off"
    )
    parser.add_argument(
        "--task",
        nargs=4,
        action="append",
        default=[],
        metavar=("NAME", "REF", "BEFORE", "AFTER"),
        help="a source task that must not suffer with the adapters on; may be repeated",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="how much worse a task may become, in percentage points (0.5)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write preserve.json")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    weights = compare_weights(read_tensors(args.before), read_tensors(args.after))
    outputs = texts = None
    if args.off_route:
        outputs = compare_outputs(*map(read_arrays, args.off_route))
    if args.transcripts:
        texts = compare_transcripts(*(read_texts(path, "hyp") for path in args.transcripts))
    tasks = [_task(args, *fields) for fields in args.task]
    checks = [check for check in (weights, outputs, texts, *tasks) if check]
    holds = all(check.holds for check in checks)
    found: dict[str, Any] = {"holds": holds, "weights": _facts(weights)}
    if outputs:
        found["off_route"] = _facts(outputs)
    if texts:
        found["transcripts"] = _facts(texts)
    if tasks:
        found["tasks"] = [asdict(task) for task in tasks]
    if args.out:
        write_json(args.out / "preserve.json", found)
    if args.json:
        return as_json(found)
    lines = [_weights_line(weights)]
    if outputs:
        lines.append(_outputs_line(outputs))
    if texts:
        lines.append(_texts_line(texts))
    lines += map(_task_line, tasks)
    return "\n".join([*lines, "preserved" if holds else "NOT preserved"])


def _task(args: argparse.Namespace, name: str, *files: str) -> Task:
    columns = ("ref", "hyp", "hyp")
    refs, *hyps = (read_side(Path(f), column) for f, column in zip(files, columns, strict=True))
    before, after = (score_texts(args, refs.texts, side.texts, refs.languages) for side in hyps)
    paired = paired_difference(
        before, after, speakers_of(args), samples=args.samples, seed=args.seed
    )
    margin = args.margin / 100
    return Task(name, before.rate, after.rate, paired, margin, paired.non_inferior(margin))


def _facts(check: Weights | Outputs | Transcripts) -> dict[str, Any]:
    return {"holds": check.holds} | asdict(check)


def _weights_line(found: Weights) -> str:
    line = f"weights: {len(found.sha256)} tensors, {len(found.changed)} changed"
    if found.changed:
        line += f" ({some(f'{name}: {what}' for name, what in found.changed.items())})"
    return line + (f", {len(found.added)} added" if found.added else "")


def _outputs_line(found: Outputs) -> str:
    where = f" in {found.where!r}" if found.where else ""
    return (
        f"off-route outputs: {found.arrays} arrays, {found.numbers} numbers, "
        f"largest difference {found.max_abs_difference:g}{where}"
    )


def _texts_line(found: Transcripts) -> str:
    line = f"transcripts: {found.utterances}, {len(found.different)} different"
    return line + (f" ({some(found.different)})" if found.different else "")


def _task_line(task: Task) -> str:
    paired = task.paired
    return (
        f"{task.name}: {percent(task.before)} -> {percent(task.after)} %, difference "
        f"{percent(paired.delta, signed=True)} "
        f"{percent_range(paired.low, paired.high, signed=True)}, worse by no more than "
        f"{100 * task.margin:g} points: {'yes' if task.holds else 'not shown'}"
        + (f" ({paired.note})" if paired.note else "")
    )
