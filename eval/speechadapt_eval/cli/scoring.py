"""What the commands that score transcripts share: options, files and lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_texts, read_utt2spk
from speechadapt_eval.report.table import percent
from speechadapt_eval.statistics.bootstrap import Interval
from speechadapt_eval.transcripts.normalize import NORMALIZERS
from speechadapt_eval.transcripts.wer import MODES, UNITS, ErrorRate, score

FILES = """
Files are Kaldi 'text' files (utterance id, then the words) or utts.jsonl (one object a line with
id, ref, hyp). Utterances are matched by id.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """How texts are normalised, matched and resampled."""
    parser.add_argument("--unit", choices=list(UNITS), default="word", help="default: word")
    parser.add_argument(
        "--normalize",
        choices=list(NORMALIZERS),
        default="unicode",
        help="unicode (default): case and punctuation are forgiven, marks kept; none: all counts",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="strict",
        help="ids without a hypothesis are an error (strict, default), left out (present), or "
        "taken as empty (all)",
    )
    parser.add_argument(
        "--utt2spk",
        type=Path,
        action="append",
        metavar="FILE",
        help="speakers, for intervals that cover other speakers; may be repeated",
    )
    parser.add_argument(
        "--samples", type=int, default=10_000, metavar="N", help="bootstrap replicates (10000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def add_files(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """Positional files, and more sets to pool with them."""
    for name in names:
        parser.add_argument(name.lower(), type=Path, metavar=name)
    parser.add_argument(
        "--and",
        dest="more",
        nargs=len(names),
        type=Path,
        action="append",
        default=[],
        metavar=names,
        help="pool another set with it; may be repeated, ids must be unique over all sets",
    )


@dataclass(frozen=True)
class PooledSets:
    """What was read of one or more test sets, pooled.

    Attributes:
        texts: Utterance id to text of each side; side 0 holds the references.
        speakers: Utterance id to speaker; None if nothing says who speaks.
    """

    texts: list[dict[str, str]]
    speakers: dict[str, str] | None


def read_sets(args: argparse.Namespace, file_sets: Sequence[Sequence[Path]]) -> PooledSets:
    """Read the sets and join each side.

    Raises:
        EvalError: A file cannot be read, or an id occurs in two sets.
    """
    texts: list[dict[str, str]] = [{} for _ in file_sets[0]]
    for files in file_sets:
        for side, (joined, path) in enumerate(zip(texts, files, strict=True)):
            new = read_texts(path, "hyp" if side else "ref")
            if twice := joined.keys() & new.keys():
                raise EvalError(
                    f"{path}: {len(twice)} ids occur in another set as well ({some(twice)}); "
                    "make them unique before pooling, e.g. with the language in front"
                )
            joined.update(new)
    return PooledSets(texts, _speakers(args))


def score_texts(args: argparse.Namespace, refs: dict[str, str], hyps: dict[str, str]) -> ErrorRate:
    """Scored as the options say."""
    return score(refs, hyps, unit=args.unit, normalize=args.normalize, mode=args.mode)


def remarks(rate: ErrorRate) -> list[str]:
    """What must not pass unseen: ids left out, and a rate that does not exist."""
    remarks = [rate.reason] if rate.reason else []
    if rate.extra:
        remarks.append(f"{len(rate.extra)} hypotheses have no reference and were left out.")
    return remarks


def interval_line(interval: Interval) -> str:
    """One line: ends, method, remark."""
    ends = f"[ {percent(interval.low)}, {percent(interval.high)} ]"
    line = f"{100 * interval.level:g} % CI {ends} {interval.method}"
    return line + (f" ({interval.note})" if interval.note else "")


def facts(rate: ErrorRate) -> dict[str, Any]:
    """Counts of a system for JSON."""
    counts = ("errors", "n_ref", "hits", "substitutions", "deletions", "insertions")
    facts: dict[str, Any] = {"unit": rate.unit, "normalize": rate.normalize, "mode": rate.mode}
    facts |= {"rate": rate.rate, "reason": rate.reason}
    facts |= {name: getattr(rate, name) for name in counts}
    facts |= {"sentences": len(rate.utterances), "sentence_errors": rate.sentence_errors}
    return facts | {"missing": list(rate.missing), "extra": list(rate.extra)}


def _speakers(args: argparse.Namespace) -> dict[str, str] | None:
    """Speaker of each utterance, if a table was given."""
    if not args.utt2spk:
        return None
    return {name: who for path in args.utt2spk for name, who in read_utt2spk(path).items()}
