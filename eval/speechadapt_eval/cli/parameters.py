"""``speechadapt-eval parameters``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

from speechadapt_eval.cli.options import add_json
from speechadapt_eval.outputs import as_json, write_json
from speechadapt_eval.report.table import render
from speechadapt_eval.routes.parameters import Size, sizes

EXAMPLES = """
examples:
  speechadapt-eval parameters adapters/be adapters/ro --base whisper-base
  speechadapt-eval parameters adapter.safetensors --json

Only the headers of the safetensors files are read.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``parameters``."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="what they are a share of")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write params.json")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    found = sizes(args.folders, args.base)
    facts = {
        "base": asdict(found[0]) if args.base else None,
        "adapters": [asdict(size) for size in found[bool(args.base) : -1]],
        "total": asdict(found[-1]),
    }
    if args.out:
        write_json(args.out / "params.json", facts)
    return as_json(facts) if args.json else _page(found)


def _page(found: list[Size]) -> str:
    rows = [
        [
            size.name,
            f"{size.tensors}",
            f"{size.parameters:,}",
            "n/a" if math.isnan(size.share) else f"{100 * size.share:.3f}",
            f"{size.bytes:,}",
            "+".join(sorted(size.dtypes)),
        ]
        for size in found
    ]
    header = ["", "tensors", "parameters", "% of base", "bytes", "types"]
    return render(header, rows, align="lrrrrl").rstrip("\n")
