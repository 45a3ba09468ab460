"""``speechadapt-eval compare``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from speechadapt_eval.cli.scoring import (
    FILES,
    add_options,
    facts,
    read_sets,
    remarks,
    score_texts,
)
from speechadapt_eval.errors import EvalError
from speechadapt_eval.outputs import as_json
from speechadapt_eval.report.scored import read_run
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.report.versus import compare_runs, render_comparison
from speechadapt_eval.runs.folder import RECORD
from speechadapt_eval.statistics.bootstrap import Interval, Paired, interval_of, paired_difference
from speechadapt_eval.statistics.mapsswe import Mapsswe, mapsswe
from speechadapt_eval.statistics.multiple import holm
from speechadapt_eval.transcripts.wer import ErrorRate

EXAMPLES = f"""
examples:
  speechadapt-eval compare data/be/test/text exp/frozen/text exp/be/text
  speechadapt-eval compare --utt2spk data/test/utt2spk ref.txt base.txt small.txt large.txt
  speechadapt-eval compare --margin 1.5 ref.txt offline.txt streaming.txt
  speechadapt-eval compare be/ref be/a be/b --and ro/ref ro/a ro/b      two sets pooled
  speechadapt-eval compare exp/monday exp/tuesday      two runs of speechadapt-eval run

The first system is the one that the others are compared with. A difference is theirs less its.
MAPSSWE is the matched pairs test of NIST's sc_stats; its p is corrected for the number of systems.
{FILES}"""


@dataclass(frozen=True)
class System:
    """One of the compared systems: letter, file, and figures."""

    letter: str
    path: Path
    rate: ErrorRate
    interval: Interval


@dataclass(frozen=True)
class Pair:
    """A system against the first; ``p_holm`` is the test's p corrected for all pairs."""

    system: System
    paired: Paired
    test: Mapsswe
    p_holm: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``compare``."""
    add_options(parser)
    parser.add_argument("ref", type=Path, metavar="REF", help="or a run, against another")
    parser.add_argument("hyps", type=Path, nargs="+", metavar="HYP", help="two systems or more")
    parser.add_argument(
        "--and",
        dest="more",
        nargs="+",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="pool another set with it: its REF and the HYP of each system; may be repeated, ids "
        "must be unique over all sets",
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="say whether a system is worse by no more than this many percentage points",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    if len(args.hyps) == 1 and all((run / RECORD).is_file() for run in (args.ref, *args.hyps)):
        compared = compare_runs(*map(read_run, (args.ref, *args.hyps)))
        return as_json(compared.as_dict()) if args.json else render_comparison(compared)
    systems, pairs = _compare(args)
    if args.json:
        return as_json(
            {
                "systems": [
                    {"name": s.letter, "hyp": str(s.path)}
                    | facts(s.rate)
                    | {"interval": asdict(s.interval)}
                    for s in systems
                ],
                "pairs": [_pair_facts(pair, args.margin) for pair in pairs],
            }
        )
    return "\n".join([*_tables(systems, pairs, args.margin), *_notes(systems, pairs)])


def _compare(args: argparse.Namespace) -> tuple[list[System], list[Pair]]:
    first = [args.ref, *args.hyps]
    if not 3 <= len(first) <= 1 + len(ascii_uppercase):
        raise EvalError(
            f"{len(args.hyps)} hypothesis files: compare needs REF and 2 to {len(ascii_uppercase)}"
        )
    if args.margin is not None and not args.margin >= 0:
        raise EvalError(f"margin {args.margin:g}: give the points a system may be worse, 0 or more")
    for files in args.more:
        if len(files) != len(first):
            raise EvalError(
                f"--and {files[0]}: {len(files)} files where the first set has {len(first)}; give "
                "the reference and one hypothesis file for each system"
            )
    sets = read_sets(args, [first, *args.more])
    refs, *texts = sets.texts
    if args.mode == "present":  # what only some of the systems have cannot be compared
        common = set.intersection(*map(set, texts))
        texts = [{name: hyps[name] for name in hyps if name in common} for hyps in texts]
    options = {"samples": args.samples, "seed": args.seed}
    systems = []
    for letter, path, hyps in zip(ascii_uppercase, args.hyps, texts, strict=False):
        rate = score_texts(args, refs, hyps, sets.languages)
        interval = interval_of(rate, sets.speakers, **options)
        systems.append(System(letter, path, rate, interval))
    base, *others = systems
    tests = [mapsswe(base.rate, other.rate) for other in others]
    return systems, [
        Pair(other, paired_difference(base.rate, other.rate, sets.speakers, **options), test, p)
        for other, test, p in zip(others, tests, holm([test.p for test in tests]), strict=True)
    ]


def _pair_facts(pair: Pair, margin: float | None) -> dict[str, Any]:
    found = {
        "baseline": "A",
        "system": pair.system.letter,
        "paired": asdict(pair.paired),
        "mapsswe": asdict(pair.test) | {"p_holm": pair.p_holm},
    }
    if margin is not None:
        holds = pair.paired.non_inferior(margin / 100)
        found["non_inferior"] = {"margin": margin / 100, "holds": holds}
    return found


def _tables(systems: list[System], pairs: list[Pair], margin: float | None) -> list[str]:
    name, level = systems[0].rate.name, f"{100 * systems[0].interval.level:g} % CI"
    rates = [
        [
            s.letter,
            percent(s.rate.rate),
            percent_range(s.interval.low, s.interval.high),
            f"{s.rate.errors} / {s.rate.n_ref}",
            str(s.rate.substitutions),
            str(s.rate.deletions),
            str(s.rate.insertions),
            str(s.path),
        ]
        for s in systems
    ]
    header = ["system", f"%{name}", level, "errors", "sub", "del", "ins", "file"]
    tables = [render(header, rates, align="lrrrrrrl")]
    header = ["pair", f"Δ%{name}", level, "P(better)", "segments", "Z", "p", "Holm p"]
    rows = [
        [
            f"{pair.system.letter} - A",
            percent(pair.paired.delta, signed=True),
            percent_range(pair.paired.low, pair.paired.high, signed=True),
            _number(pair.paired.p_improvement, 4),
            str(pair.test.segments),
            _number(pair.test.z, 3),
            _probability(pair.test.p),
            _probability(pair.p_holm),
        ]
        for pair in pairs
    ]
    tables.append(render(header, rows))
    if margin is not None:
        tables += [_verdict(pair, margin) for pair in pairs]
    return tables


def _verdict(pair: Pair, margin: float) -> str:
    """In words, whether the system is non-inferior, or what is missing to say so."""
    paired = pair.paired
    if paired.non_inferior(margin / 100):
        verdict = f"non-inferior, its interval ends at {percent(paired.high, signed=True)}"
    elif paired.low > margin / 100:
        verdict = f"inferior, its interval begins at {percent(paired.low, signed=True)}"
    else:
        verdict = f"not shown, its interval ends at {percent(paired.high, signed=True)}"
    return f"{pair.system.letter} - A, margin {margin:+g} points: {verdict}"


def _notes(systems: list[System], pairs: list[Pair]) -> list[str]:
    """What must not pass unseen, each sentence once."""
    lines = [f"{s.letter}: {remark}" for s in systems for remark in remarks(s.rate)]
    lines += [
        f"{s.letter}: {len(s.rate.missing)} utterances without a hypothesis." for s in systems
        if s.rate.missing
    ]  # fmt: skip
    figures: list[Interval | Paired] = [s.interval for s in systems]
    figures += [pair.paired for pair in pairs]
    lines += dict.fromkeys(f"CI: {figure.method}." for figure in figures)
    notes = dict.fromkeys(figure.note for figure in figures if figure.note)
    return lines + [f"warning: {note}." for note in notes]


def _number(value: float, places: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{places}f}"


def _probability(p: float) -> str:
    return "<0.0001" if p < 0.0001 else _number(p, 4)
