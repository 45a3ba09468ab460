"""``speechadapt-eval compare``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import Any

from speechadapt_eval.cli.scoring import (
    FILES,
    add_files,
    add_options,
    facts,
    interval_line,
    read_sets,
    remarks,
    score_texts,
)
from speechadapt_eval.outputs import as_json
from speechadapt_eval.report.table import percent
from speechadapt_eval.statistics.bootstrap import Paired, interval_of, paired_difference

EXAMPLES = f"""
examples:
  speechadapt-eval compare data/be/test/text exp/frozen/text exp/be/text
  speechadapt-eval compare --margin 1.5 ref.txt offline.txt streaming.txt
{FILES}"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``compare``."""
    add_options(parser)
    add_files(parser, ("REF", "HYP_A", "HYP_B"))
    parser.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="say whether B is worse by no more than this many percentage points",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    sets = read_sets(args, [(args.ref, args.hyp_a, args.hyp_b), *args.more])
    refs, *both = sets.texts
    if args.mode == "present":  # what only one system has cannot be compared
        both = [{k: v for k, v in hyps.items() if k in both[0] and k in both[1]} for hyps in both]
    rates = [score_texts(args, refs, hyps, sets.languages) for hyps in both]
    clusters = sets.speakers
    options = {"samples": args.samples, "seed": args.seed}
    paired = paired_difference(rates[0], rates[1], clusters, **options)
    good = None if args.margin is None else paired.non_inferior(args.margin / 100)
    if args.json:
        found: dict[str, Any] = {
            name: facts(rate) | {"interval": asdict(interval_of(rate, clusters, **options))}
            for name, rate in zip("ab", rates, strict=True)
        }
        found["paired"] = asdict(paired)
        if good is not None:
            found["non_inferior"] = {"margin": args.margin / 100, "holds": good}
        return as_json(found)
    lines = []
    for name, rate in zip("AB", rates, strict=True):
        lines += [f"{name}: {rate.kaldi_line()}", *remarks(rate)]
        lines.append(f"   {interval_line(interval_of(rate, clusters, **options))}")
    lines += [_delta_line(rates[0].name, paired)]
    if good is not None:
        verdict = "yes" if good else "not shown"
        lines.append(f"B worse by no more than {args.margin:g} points: {verdict}")
    return "\n".join(lines)


def _delta_line(name: str, paired: Paired) -> str:
    ends = f"[ {percent(paired.low, signed=True)}, {percent(paired.high, signed=True)} ]"
    p = "n/a" if math.isnan(paired.p_improvement) else f"{paired.p_improvement:.4f}"
    return (
        f"B - A: %{name} {percent(paired.delta, signed=True)}, {100 * paired.level:g} % CI {ends} "
        f"{paired.method}" + (f" ({paired.note})" if paired.note else "") + "\n"
        f"P(B makes fewer errors): {p}"
    )
