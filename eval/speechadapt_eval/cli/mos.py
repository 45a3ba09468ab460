"""``speechadapt-eval mos``."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from tqdm import tqdm

from speechadapt_eval.audio.distillmos import Distillmos
from speechadapt_eval.audio.dnsmos import WINDOW_S, Dnsmos
from speechadapt_eval.audio.mos import (
    COLUMNS,
    DNSMOS,
    MIN_SECONDS,
    SCALES,
    Mos,
    MosSummary,
    predict_mos,
    summarise,
)
from speechadapt_eval.audio.sources import find_sources
from speechadapt_eval.cli.options import add_json
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_utts
from speechadapt_eval.outputs import as_json, write_csv, write_text
from speechadapt_eval.report.table import render
from speechadapt_eval.statistics.resample import INTERVAL

EXAMPLES = f"""
examples:
  speechadapt-eval mos data/be/test data/be/noisy --out exp/mos
  speechadapt-eval mos recordings/*.wav
  speechadapt-eval mos data/be/test --utts RUN/hyps/base/be.jsonl     for WER against MOS
  speechadapt-eval mos data/all --min-ovrl 2.8 --out exp/mos          exp/mos/kept has the ids

DNSMOS predicts what listeners would say of a recording, 1 (bad) to 5. It judges the audio that it
is given: an adapter that changes transcripts does not change it. Clips shorter than
{MIN_SECONDS:g} s, silent ones and those beyond full scale get no score, and a reason.
"""

_COUNTS = ("group", "files", "scored", "excluded")
_SUMMARY = (*_COUNTS, *SCALES, "shortest", "longest", *INTERVAL)
_ABOUT = ("window_s", "min_seconds", "model")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mos``."""
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="audio files, folders of them, Kaldi data directories, .jsonl with id and audio",
    )
    parser.add_argument(
        "--min-seconds",
        type=float,
        default=MIN_SECONDS,
        metavar="S",
        help=f"shorter clips get no score ({MIN_SECONDS:g})",
    )
    parser.add_argument(
        "--no-resample", action="store_true", help="no score for what is not 16 kHz"
    )
    parser.add_argument(
        "--with",
        dest="extra",
        choices=["distillmos"],
        help="another network's opinion as well; needs torch and the package distillmos",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write mos_utt.csv and mos.csv")
    parser.add_argument(
        "--utts",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="set the field 'mos' (ovrl, or null) of each row of this utts.jsonl; may be repeated",
    )
    parser.add_argument(
        "--min-ovrl",
        type=float,
        metavar="MOS",
        help="write DIR/kept: the ids whose ovrl is at least this, one a line",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    if args.min_ovrl is not None and args.out is None:
        raise EvalError("--min-ovrl writes the list of ids to DIR/kept: give --out DIR as well")
    sources = find_sources(args.paths)
    if args.utts or args.min_ovrl is not None:
        _require_unique([source.id for source in sources])
    for path in args.utts:  # before the long work
        _require_known(path, {source.id for source in sources})
    dnsmos = Dnsmos()
    found = predict_mos(
        sources,
        dnsmos,
        min_seconds=args.min_seconds,
        resample=not args.no_resample,
        distillmos=Distillmos() if args.extra else None,
    )
    rows = list(tqdm(found, "mos", total=len(sources), unit="clip", disable=None))
    summaries = summarise(rows)
    remarks = []
    if args.out is not None:
        write_csv(args.out / "mos_utt.csv", COLUMNS, [astuple(row) for row in rows])
        about = (WINDOW_S, args.min_seconds, f"DNSMOS of {dnsmos.version}")
        write_csv(
            args.out / "mos.csv", _SUMMARY + _ABOUT, [_cells(group) + about for group in summaries]
        )
    if args.min_ovrl is not None:
        kept = [row.id for row in rows if row.ovrl >= args.min_ovrl]
        write_text(args.out / "kept", "".join(f"{name}\n" for name in kept))
        remarks.append(
            f"{len(kept)} of {len(rows)} have ovrl >= {args.min_ovrl:g}: {args.out / 'kept'}"
        )
    for path in args.utts:
        _join(path, {row.id: row.ovrl for row in rows})
        remarks.append(f"{path}: field 'mos' set")
    if args.json:
        return as_json(
            {
                "model": f"DNSMOS of {dnsmos.version}",
                "window_s": WINDOW_S,
                "min_seconds": args.min_seconds,
                "groups": [asdict(group) for group in summaries],
                "recordings": [asdict(row) for row in rows],
            }
        )
    scales = SCALES if args.extra else DNSMOS
    tables = [_table(rows, scales), _summary_table(summaries, scales)]
    return "\n".join([*tables, *_said(summaries), *remarks])


def _table(rows: Sequence[Mos], scales: Sequence[str]) -> str:
    header = ("id", "seconds", *scales, "windows", "reason")
    cells = [
        [
            row.id,
            _number(row.seconds),
            *(_number(getattr(row, scale)) for scale in scales),
            str(row.windows or ""),
            row.reason,
        ]
        for row in rows
    ]
    return render(header, cells, align="lr" + "r" * len(scales) + "rl")


def _summary_table(summaries: Sequence[MosSummary], scales: Sequence[str]) -> str:
    header = ("group", "scored", "of", *scales, "95 % CI of ovrl", "seconds")
    cells = [
        [
            group.group,
            str(group.scored),
            str(group.files),
            *(_number(group.means[scale]) for scale in scales),
            f"[{_number(group.interval.low)}, {_number(group.interval.high)}]",
            f"{_number(group.shortest)} to {_number(group.longest)}",
        ]
        for group in summaries
    ]
    return render(header, cells)


def _said(summaries: Sequence[MosSummary]) -> list[str]:
    lines = []
    for group in summaries:
        if group.excluded:
            what = ", ".join(f"{count} {reason}" for reason, count in group.excluded.items())
            lines.append(f"{group.group}: without a score: {what}.")
        if group.scored and group.interval.note:
            lines.append(f"{group.group}: {group.interval.note}.")
        if group.scored and group.shortest < WINDOW_S / 2 and group.longest > 2 * group.shortest:
            lines.append(f"{group.group}: lengths differ much, and shorter clips score lower.")
    return lines


def _cells(group: MosSummary) -> tuple[object, ...]:
    """In the order of ``_SUMMARY``."""
    return (
        group.group,
        group.files,
        group.scored,
        group.files - group.scored,
        *(group.means[scale] for scale in SCALES),
        group.shortest,
        group.longest,
        *astuple(group.interval),
    )


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def _require_unique(ids: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise EvalError(
            f"{len(twice)} ids occur in several groups ({some(twice)}): "
            "--utts and --min-ovrl go by id, so score the groups one by one"
        )


def _require_known(path: Path, known: set[str]) -> None:
    if unknown := read_utts(path).keys() - known:
        raise EvalError(
            f"{path}: {len(unknown)} utterances are not among the audio ({some(unknown)}); "
            "give all audio that it was made from"
        )


def _join(path: Path, mos: dict[str, float]) -> None:
    """Write the field; all other fields stay as they are, in their order."""
    lines = []
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if line:
            row = json.loads(line)
            score = mos[row["id"]]
            row["mos"] = None if math.isnan(score) else round(score, 4)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
