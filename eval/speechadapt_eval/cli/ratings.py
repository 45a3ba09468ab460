"""``speechadapt-eval ratings``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from speechadapt_eval.cli.options import add_bootstrap, add_json
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.listening.mos import (
    ClipMos,
    MosPair,
    SystemMos,
    clip_mos,
    mos_pairs,
    system_mos,
)
from speechadapt_eval.listening.ratings import SCALES, read_ratings, scale_of
from speechadapt_eval.listening.screening import Rater, kept, screen
from speechadapt_eval.outputs import as_json, write_csv
from speechadapt_eval.report.table import render

EXAMPLES = """
examples:
  speechadapt-eval ratings ratings.csv
  speechadapt-eval ratings --out exp/mos ratings_anna.csv ratings_jan.csv
  speechadapt-eval ratings --scale mushra mushra.csv

Files have a header and the columns rater,clip,system,score and, where they apply, kind (test, gold,
trap, anchor, ref), expected (the right score of a gold clip or trap) and session; the page of
speechadapt-eval listening-page writes them. --out writes mos_system.csv, mos_clip.csv, raters.csv
and pairs.csv.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ratings``."""
    parser.add_argument("files", type=Path, nargs="+", metavar="CSV", help="of one test")
    parser.add_argument(
        "--scale",
        choices=list(SCALES),
        default="acr",
        help="acr: whole numbers 1 to 5 (default); mushra: 0 to 100",
    )
    parser.add_argument(
        "--min-ratings",
        type=int,
        default=5,
        metavar="N",
        help="leave out raters with fewer (5)",
    )
    add_bootstrap(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the four tables as CSV")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    scale = scale_of(args.scale)
    ratings = read_ratings(args.files, scale)
    raters = screen(ratings, scale, min_ratings=args.min_ratings)
    good = kept(ratings, raters)
    if not good:
        reasons = "; ".join(f"{r.name}: {', '.join(r.reasons)}" for r in raters[:3])
        raise EvalError(
            f"{some(map(str, args.files))}: no rater passed the screening ({reasons}); see --help "
            "for its limits"
        )
    options = {"samples": args.samples, "seed": args.seed}
    systems, pairs = system_mos(good, **options), mos_pairs(good, **options)
    clips = clip_mos(good)
    if args.out:
        _write(args.out, systems, clips, raters, pairs)
    if args.json:
        return as_json(
            {
                "scale": scale.name,
                "systems": [asdict(mos) for mos in systems],
                "pairs": [asdict(pair) for pair in pairs],
                "raters": [asdict(rater) | {"kept": rater.kept} for rater in raters],
            }
        )
    return "\n".join(
        [*_dropped(raters), "", _system_table(systems), *_pair_table(pairs), *_notes(systems)]
    )


def _dropped(raters: Sequence[Rater]) -> list[str]:
    out = [rater for rater in raters if not rater.kept]
    lines = [f"{len(raters) - len(out)} of {len(raters)} raters passed the screening."]
    return lines + [f"left out {rater.name}: {'; '.join(rater.reasons)}" for rater in out]


def _system_table(systems: Sequence[SystemMos]) -> str:
    header = ["system", "kind", "MOS", "95 % CI", "naive", "t, raters", "ratings", "raters",
              "clips"]  # fmt: skip
    rows = [
        [
            mos.system,
            mos.kind,
            f"{mos.mos:.2f}",
            _ends(mos.interval.low, mos.interval.high),
            _ends(*mos.naive),
            _ends(*mos.student),
            str(mos.ratings),
            str(mos.raters),
            str(mos.clips),
        ]
        for mos in systems
    ]
    return render(header, rows, align="llrrrrrrr")


def _pair_table(pairs: Sequence[MosPair]) -> list[str]:
    if not pairs:
        return []
    header = ["pair", "ΔMOS", "95 % CI", "clips", "Wilcoxon p", "Holm p"]
    rows = [
        [
            f"{pair.b} - {pair.a}",
            f"{pair.delta:+.2f}",
            _ends(pair.interval.low, pair.interval.high, signed=True),
            str(pair.clips),
            "n/a" if math.isnan(pair.p) else f"{pair.p:.4f}",
            "n/a" if math.isnan(pair.p_holm) else f"{pair.p_holm:.4f}",
        ]
        for pair in pairs
    ]
    return [render(header, rows)]


def _notes(systems: Sequence[SystemMos]) -> list[str]:
    lines = ["CI: crossed bootstrap over raters and clips."]
    return lines + [
        f"warning: {mos.system}: {mos.interval.note}." for mos in systems if mos.interval.note
    ]


def _ends(low: float, high: float, *, signed: bool = False) -> str:
    if math.isnan(low) or math.isnan(high):
        return "n/a"
    sign = "+" if signed else ""
    return f"[{low:{sign}.2f}, {high:{sign}.2f}]"


def _write(
    folder: Path,
    systems: Sequence[SystemMos],
    clips: Sequence[ClipMos],
    raters: Sequence[Rater],
    pairs: Sequence[MosPair],
) -> None:
    more = ("t_low", "t_high", "naive_low", "naive_high", "ratings", "raters")
    write_csv(
        folder / "mos_system.csv",
        ("system", "kind", "mos", "low", "high", *more, "clips", "method", "note"),
        (
            (m.system, m.kind, m.mos, m.interval.low, m.interval.high, *m.student, *m.naive,
             m.ratings, m.raters, m.clips, m.interval.method, m.interval.note)
            for m in systems
        ),
    )  # fmt: skip
    write_csv(
        folder / "mos_clip.csv",
        ("system", "clip", "mos", *more),
        ((c.system, c.clip, c.mos, *c.student, *c.naive, c.ratings, c.raters) for c in clips),
    )
    write_csv(
        folder / "raters.csv",
        ("rater", "kept", "reasons", "ratings", "golds", "golds_missed", "traps", "traps_missed",
         "mean", "variance", "correlation", "references", "references_low"),
        (
            (r.name, "yes" if r.kept else "no", "; ".join(r.reasons), r.ratings, r.golds,
             r.golds_missed, r.traps, r.traps_missed, r.mean, r.variance, r.correlation,
             r.references, r.references_low)
            for r in raters
        ),
    )  # fmt: skip
    write_csv(
        folder / "pairs.csv",
        ("a", "b", "delta", "low", "high", "clips", "p_wilcoxon", "p_holm", "method", "note"),
        (
            (p.a, p.b, p.delta, p.interval.low, p.interval.high, p.clips, p.p, p.p_holm,
             p.interval.method, p.interval.note)
            for p in pairs
        ),
    )  # fmt: skip
