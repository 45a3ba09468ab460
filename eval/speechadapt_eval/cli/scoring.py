"""What the commands that score transcripts share: options, files and lines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechadapt_eval.cli.options import add_bootstrap, add_json
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import Side, read_field, read_side, read_table, read_utt2spk
from speechadapt_eval.report.table import percent
from speechadapt_eval.statistics.bootstrap import Interval
from speechadapt_eval.transcripts.align import SPLITS
from speechadapt_eval.transcripts.normalize import NORMALIZERS
from speechadapt_eval.transcripts.wer import MODES, UNITS, ErrorRate, score

FILES = """
Files are Kaldi 'text' files (utterance id, then the words), Kaldi data directories (with their
utt2spk, utt2lang, utt2dur), utts.jsonl (one object a line with id, ref, hyp and any other fields),
or sclite's .trn files. Utterances are matched by id.
"""
# Of wer.csv: one row for a system on a test set; rate, low and high are shares.
WER_COLUMNS = (
    "system", "set", "lang", "unit", "errors", "n_ref", "substitutions", "deletions", "insertions",
    "rate", "low", "high", "method", "utterances", "speakers", "normalizer",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser, *, resampled: bool = True) -> None:
    """How texts are normalised, matched and, for commands with intervals, resampled."""
    parser.add_argument(
        "--unit",
        choices=UNITS,
        default="word",
        help="word (default); char; mixed: characters of scripts without spaces, else words; "
        "auto: char for languages without spaces between words, else word (needs languages)",
    )
    parser.add_argument(
        "--normalize",
        choices=list(NORMALIZERS),
        default="unicode",
        help="unicode (default): case and punctuation are forgiven, marks kept; none: all counts; "
        "whisper-basic, whisper-english: as published figures of Whisper (pip install "
        "whisper-normalizer)",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="jiwer",
        help="whose tie-breaking splits errors into substitutions, deletions and insertions: "
        "jiwer (default), kaldi (compute-wer), align-text (Kaldi's per_utt, per_spk); the total is "
        "the same",
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
        "--utt2lang",
        type=Path,
        action="append",
        metavar="FILE",
        help="languages, for --unit auto and for Turkish letters; may be repeated",
    )
    if resampled:
        add_bootstrap(parser)
    add_json(parser)


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


def add_fields(parser: argparse.ArgumentParser) -> None:
    """More that is known of the utterances, from Kaldi tables."""
    parser.add_argument(
        "--field",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="a field from a table with utterance id and value, e.g. duration utt2dur; may be "
        "repeated",
    )


@dataclass(frozen=True)
class PooledSets:
    """What was read of one or more test sets, pooled.

    Attributes:
        texts: Utterance id to text of each side; side 0 holds the references.
        speakers: Utterance id to speaker; None if nothing says who speaks.
        languages: Utterance id to language, of the utterances that have one.
        fields: Utterance id to what else is known of it.
    """

    texts: list[dict[str, str]]
    speakers: dict[str, str] | None
    languages: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)

    def values(self, name: str) -> Mapping[str, Any]:
        """Utterance id to a field, of the utterances that have it; speaker and language too."""
        if name == "speaker":
            return self.speakers or {}
        if name == "language":
            return self.languages
        return {key: known[name] for key, known in self.fields.items() if name in known}


def read_sets(args: argparse.Namespace, file_sets: Sequence[Sequence[Path]]) -> PooledSets:
    """Read the sets and join each side.

    What is known of an utterance comes from tables given as options, from the references' file,
    or else from the hypotheses'.

    Raises:
        EvalError: A file cannot be read, or an id occurs in two sets.
    """
    texts: list[dict[str, str]] = [{} for _ in file_sets[0]]
    languages: dict[str, str] = {}
    fields: dict[str, dict[str, Any]] = {}
    for files in file_sets:
        for number, (joined, path) in enumerate(zip(texts, files, strict=True)):
            side = read_side(path, "hyp" if number else "ref")
            if twice := joined.keys() & side.texts.keys():
                raise EvalError(
                    f"{path}: {len(twice)} ids occur in another set as well ({some(twice)}); "
                    "make them unique before pooling, e.g. with the language in front"
                )
            joined.update(side.texts)
            _learn(side, languages, fields)
    for name, path in getattr(args, "field", []):
        for key, value in read_field(Path(path), name).items():
            fields.setdefault(key, {})[name] = value
    for path in args.utt2lang or []:
        languages |= read_table(path, "language")
    return PooledSets(texts, _speakers(args, fields), languages, fields)


def score_texts(
    args: argparse.Namespace,
    refs: dict[str, str],
    hyps: dict[str, str],
    languages: Mapping[str, str] | None = None,
) -> ErrorRate:
    """Scored as the options say."""
    return score(
        refs,
        hyps,
        unit=args.unit,
        normalize=args.normalize,
        mode=args.mode,
        languages=languages,
        split=args.split,
    )


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
    facts |= {"split": rate.split}
    facts |= {"rate": rate.rate, "reason": rate.reason}
    facts |= {name: getattr(rate, name) for name in counts}
    facts |= {"sentences": len(rate.utterances), "sentence_errors": rate.sentence_errors}
    return facts | {"missing": list(rate.missing), "extra": list(rate.extra)}


def wer_row(
    system: str,
    set_name: str,
    rate: ErrorRate,
    interval: Interval,
    *,
    languages: Mapping[str, str] | None = None,
    speakers: Mapping[str, str] | None = None,
) -> tuple[Any, ...]:
    """A row of ``WER_COLUMNS``.

    ``lang`` is empty unless all utterances are of one language, ``unit`` is ``auto`` only where it
    stands for more than one.
    """
    known = {(languages or {}).get(u.id, "") for u in rate.utterances}
    units = {u.unit for u in rate.utterances}
    voices = len({speakers.get(u.id) for u in rate.utterances}) if speakers else None
    return (
        system, set_name, known.pop() if len(known) == 1 else "",
        units.pop() if len(units) == 1 else rate.unit, rate.errors,
        rate.n_ref, rate.substitutions, rate.deletions, rate.insertions, rate.rate, interval.low,
        interval.high, interval.method, len(rate.utterances), voices, rate.normalize,
    )  # fmt: skip


def _learn(side: Side, languages: dict[str, str], fields: dict[str, dict[str, Any]]) -> None:
    """Add what a file tells; what is known already stays."""
    for name, language in side.languages.items():
        languages.setdefault(name, language)
    for name, known in side.fields.items():
        fields[name] = known | fields.get(name, {})


def _speakers(
    args: argparse.Namespace, fields: Mapping[str, Mapping[str, Any]]
) -> dict[str, str] | None:
    """Speaker of each utterance: of the tables given, else of the texts' files, if any says."""
    if args.utt2spk:
        return {name: who for path in args.utt2spk for name, who in read_utt2spk(path).items()}
    found = {name: known.get("speaker") for name, known in fields.items()}
    return {name: str(who) for name, who in found.items() if who not in (None, "")} or None
