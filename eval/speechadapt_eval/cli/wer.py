"""``speechadapt-eval wer``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechadapt_eval.cli.scoring import (
    FILES,
    WER_COLUMNS,
    PooledSets,
    add_fields,
    add_files,
    add_options,
    facts,
    interval_line,
    read_sets,
    remarks,
    score_texts,
    wer_row,
)
from speechadapt_eval.outputs import as_json, write_csv, write_text
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import Interval, interval_of
from speechadapt_eval.transcripts.details import (
    CONFUSION_COLUMNS,
    SPEAKER_COLUMNS,
    confusions,
    kaldi_per_spk,
    kaldi_per_utt,
    speaker_rows,
    trn_lines,
    utterance_lines,
)
from speechadapt_eval.transcripts.slices import parse, slices
from speechadapt_eval.transcripts.wer import ErrorRate

EXAMPLES = f"""
examples:
  speechadapt-eval wer data/be/test/text exp/be/decode/text
  speechadapt-eval wer --unit auto utts.jsonl utts.jsonl
  speechadapt-eval wer --utt2spk data/test/utt2spk data/test/text hyp.txt
  speechadapt-eval wer data/be/test hyp.txt --by duration --confusions 10 --out exp/be/scores
  speechadapt-eval wer utts.jsonl utts.jsonl --by noise --by snr:0,10,20
  speechadapt-eval wer be/ref be/hyp --and ro/ref ro/hyp      two sets pooled
{FILES}
--out writes wer.csv, wer_utt.jsonl, confusions.csv and per_utt; where speakers are known also
wer_spk.csv and per_spk; with --by slices.csv. per_utt and per_spk are Kaldi's.
"""
SLICE_COLUMNS = (
    "field", "value", "unit", "errors", "n_ref", "substitutions", "deletions", "insertions", "rate",
    "low", "high", "method", "utterances", "speakers",
)  # fmt: skip
# Slices of one system: field, value, its rate and interval.
Sliced = list[tuple[str, str, ErrorRate, Interval]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``wer``."""
    add_options(parser)
    add_fields(parser)
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="FIELD",
        help="rates of slices: speaker, language, duration or any field; with edges, as "
        "snr:0,10,20, in ranges; may be repeated",
    )
    parser.add_argument(
        "--confusions", type=int, metavar="N", help="show the N most frequent errors of each kind"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables (see below)")
    parser.add_argument(
        "--trn-out",
        type=Path,
        metavar="DIR",
        help="write ref.trn and hyp.trn as scored, for sclite",
    )
    add_files(parser, ("REF", "HYP"))
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    slicings = [parse(text) for text in args.by]
    sets = read_sets(args, [(args.ref, args.hyp), *args.more])
    refs, hyps = sets.texts
    rate = score_texts(args, refs, hyps, sets.languages)
    interval = _interval(args, rate, sets)
    found = [
        (slicing.field, value, its)
        for slicing in slicings
        for value, its in slices(rate, slicing, sets.values(slicing.field)).items()
    ]
    bar = tqdm(found, desc="slices", unit="slice", leave=False, disable=None)
    sliced = [(name, value, its, _interval(args, its, sets)) for name, value, its in bar]
    if args.out:
        _write_tables(args, rate, interval, sliced, sets)
    if args.trn_out:
        for side in ("ref", "hyp"):
            lines = trn_lines(rate, side, sets.speakers)
            write_text(args.trn_out / f"{side}.trn", "".join(lines))
    worst = confusions(rate).rows(max(args.confusions, 0)) if args.confusions else []
    if args.json:
        answer = facts(rate) | {"interval": asdict(interval)}
        if sliced:
            rows = (_slice_row(*item, sets) for item in sliced)
            answer["slices"] = [dict(zip(SLICE_COLUMNS, row, strict=True)) for row in rows]
        if worst:
            answer["confusions"] = [dict(zip(CONFUSION_COLUMNS, r, strict=True)) for r in worst]
        return as_json(answer)
    parts = ["\n".join([rate.kaldi_lines(), *remarks(rate), interval_line(interval)])]
    parts += [_slice_table(slicing.field, sliced) for slicing in slicings]
    if worst:
        cells = [(*row[:3], str(row[3])) for row in worst]
        parts.append(render(CONFUSION_COLUMNS, cells, align="lllr").rstrip("\n"))
    return "\n\n".join(parts)


def _interval(args: argparse.Namespace, rate: ErrorRate, sets: PooledSets) -> Interval:
    return interval_of(rate, sets.speakers, samples=args.samples, seed=args.seed)


def _slice_table(field: str, sliced: Sliced) -> str:
    rows = [
        (value, str(len(its.utterances)), str(its.n_ref), str(its.errors), f"%{its.name}",
         percent(its.rate), percent_range(interval.low, interval.high), interval.method)
        for name, value, its, interval in sliced
        if name == field
    ]  # fmt: skip
    header = (field, "utts", "tokens", "errors", "rate", "%", "95 % CI", "method")
    return render(header, rows, align="lrrrlrrl").rstrip("\n")


def _slice_row(
    field: str, value: str, rate: ErrorRate, interval: Interval, sets: PooledSets
) -> Sequence[Any]:
    row = wer_row("", "", rate, interval, speakers=sets.speakers)
    named = dict(zip(WER_COLUMNS, row, strict=True)) | {"field": field, "value": value}
    return [named[column] for column in SLICE_COLUMNS]


def _write_tables(
    args: argparse.Namespace,
    rate: ErrorRate,
    interval: Interval,
    sliced: Sliced,
    sets: PooledSets,
) -> None:
    out, speakers = args.out, sets.speakers
    pooled = [(args.ref, args.hyp), *args.more]
    row = wer_row(
        " + ".join(str(hyp) for _, hyp in pooled),
        " + ".join(str(ref) for ref, _ in pooled),
        rate,
        interval,
        languages=sets.languages,
        speakers=speakers,
    )
    write_csv(out / "wer.csv", WER_COLUMNS, [row])
    write_text(out / "wer_utt.jsonl", "".join(utterance_lines(rate, sets.languages, sets.fields)))
    write_text(out / "per_utt", "".join(kaldi_per_utt(rate)))
    write_csv(out / "confusions.csv", CONFUSION_COLUMNS, confusions(rate).rows())
    if speakers:
        write_csv(out / "wer_spk.csv", SPEAKER_COLUMNS, speaker_rows(rate, speakers))
        write_text(out / "per_spk", "".join(kaldi_per_spk(rate, speakers)))
    if sliced:
        rows = [_slice_row(*item, sets) for item in sliced]
        write_csv(out / "slices.csv", SLICE_COLUMNS, rows)
