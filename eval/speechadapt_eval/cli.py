"""The ``speechadapt-eval`` command."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechadapt_eval.bootstrap import Interval, Paired, interval_of, paired_difference
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_texts, read_utt2spk
from speechadapt_eval.normalize import NORMALIZERS
from speechadapt_eval.table import percent
from speechadapt_eval.wer import MODES, UNITS, ErrorRate, score

_FILES = """
Files are Kaldi 'text' files (utterance id, then the words) or utts.jsonl (one object a line with
id, ref, hyp). Utterances are matched by id.
"""
_WER_HELP = f"""
examples:
  speechadapt-eval wer data/be/test/text exp/be/decode/text
  speechadapt-eval wer --unit char utts.jsonl utts.jsonl
  speechadapt-eval wer --utt2spk data/test/utt2spk data/test/text hyp.txt
  speechadapt-eval wer be/ref be/hyp --and ro/ref ro/hyp      two sets pooled
{_FILES}"""
_COMPARE_HELP = f"""
examples:
  speechadapt-eval compare data/be/test/text exp/frozen/text exp/be/text
  speechadapt-eval compare --margin 1.5 ref.txt offline.txt streaming.txt
{_FILES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and exit code 2."""
    args = _parser().parse_args(argv)
    try:
        print(args.run(args), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except EvalError as error:
        print(f"speechadapt-eval: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speechadapt-eval",
        description="Error rates with confidence intervals, for any system.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    wer = _command(commands, "wer", "error rate of one system, in Kaldi's lines", _WER_HELP)
    _files(wer, ("REF", "HYP"))
    wer.set_defaults(run=_wer)
    compare = _command(commands, "compare", "difference of two systems, paired", _COMPARE_HELP)
    _files(compare, ("REF", "HYP_A", "HYP_B"))
    compare.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="say whether B is worse by no more than this many percentage points",
    )
    compare.set_defaults(run=_compare)
    return parser


def _command(commands: Any, name: str, title: str, examples: str) -> argparse.ArgumentParser:
    """A command with the options that all commands share."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    return parser


def _files(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
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


def _wer(args: argparse.Namespace) -> str:
    refs, hyps = _pool([(args.ref, args.hyp), *args.more])
    rate = _score(args, refs, hyps)
    interval = interval_of(rate, _speakers(args), samples=args.samples, seed=args.seed)
    if args.json:
        return _json(_facts(rate) | {"interval": asdict(interval)})
    return "\n".join([rate.kaldi_lines(), *_remarks(rate), _ci_line(interval)])


def _compare(args: argparse.Namespace) -> str:
    refs, *both = _pool([(args.ref, args.hyp_a, args.hyp_b), *args.more])
    if args.mode == "present":  # what only one system has cannot be compared
        both = [{k: v for k, v in hyps.items() if k in both[0] and k in both[1]} for hyps in both]
    rates = [_score(args, refs, hyps) for hyps in both]
    speakers = _speakers(args)
    options = {"samples": args.samples, "seed": args.seed}
    paired = paired_difference(rates[0], rates[1], speakers, **options)
    good = None if args.margin is None else paired.non_inferior(args.margin / 100)
    if args.json:
        found: dict[str, Any] = {
            name: _facts(rate) | {"interval": asdict(interval_of(rate, speakers, **options))}
            for name, rate in zip("ab", rates, strict=True)
        }
        found["paired"] = asdict(paired)
        if good is not None:
            found["non_inferior"] = {"margin": args.margin / 100, "holds": good}
        return _json(found)
    lines = []
    for name, rate in zip("AB", rates, strict=True):
        lines += [f"{name}: {rate.kaldi_line()}", *_remarks(rate)]
        lines.append(f"   {_ci_line(interval_of(rate, speakers, **options))}")
    lines += [_delta_line(rates[0].name, paired)]
    if good is not None:
        verdict = "yes" if good else "not shown"
        lines.append(f"B worse by no more than {args.margin:g} points: {verdict}")
    return "\n".join(lines)


def _pool(sets: Sequence[Sequence[Path]]) -> list[dict[str, str]]:
    """Read the sets and join each side; side 0 holds the references."""
    joined: list[dict[str, str]] = [{} for _ in sets[0]]
    for files in sets:
        for side, (texts, path) in enumerate(zip(joined, files, strict=True)):
            new = read_texts(path, "hyp" if side else "ref")
            if twice := texts.keys() & new.keys():
                raise EvalError(
                    f"{path}: {len(twice)} ids occur in another set as well ({some(twice)}); "
                    "make them unique before pooling, e.g. with the language in front"
                )
            texts.update(new)
    return joined


def _score(args: argparse.Namespace, refs: dict[str, str], hyps: dict[str, str]) -> ErrorRate:
    return score(refs, hyps, unit=args.unit, normalize=args.normalize, mode=args.mode)


def _speakers(args: argparse.Namespace) -> dict[str, str] | None:
    if not args.utt2spk:
        return None
    return {name: who for path in args.utt2spk for name, who in read_utt2spk(path).items()}


def _remarks(rate: ErrorRate) -> list[str]:
    """What must not pass unseen: ids left out, and a rate that does not exist."""
    remarks = [rate.reason] if rate.reason else []
    if rate.extra:
        remarks.append(f"{len(rate.extra)} hypotheses have no reference and were left out.")
    return remarks


def _ci_line(interval: Interval) -> str:
    ends = f"[ {percent(interval.low)}, {percent(interval.high)} ]"
    line = f"{100 * interval.level:g} % CI {ends} {interval.method}"
    return line + (f" ({interval.note})" if interval.note else "")


def _delta_line(name: str, paired: Paired) -> str:
    ends = f"[ {percent(paired.low, signed=True)}, {percent(paired.high, signed=True)} ]"
    p = "n/a" if math.isnan(paired.p_improvement) else f"{paired.p_improvement:.4f}"
    return (
        f"B - A: %{name} {percent(paired.delta, signed=True)}, {100 * paired.level:g} % CI {ends} "
        f"{paired.method}" + (f" ({paired.note})" if paired.note else "") + "\n"
        f"P(B makes fewer errors): {p}"
    )


def _facts(rate: ErrorRate) -> dict[str, Any]:
    counts = ("errors", "n_ref", "hits", "substitutions", "deletions", "insertions")
    facts: dict[str, Any] = {"unit": rate.unit, "normalize": rate.normalize, "mode": rate.mode}
    facts |= {"rate": rate.rate, "reason": rate.reason}
    facts |= {name: getattr(rate, name) for name in counts}
    facts |= {"sentences": len(rate.utterances), "sentence_errors": rate.sentence_errors}
    return facts | {"missing": list(rate.missing), "extra": list(rate.extra)}


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Replace NaN, which JSON has not, by null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
