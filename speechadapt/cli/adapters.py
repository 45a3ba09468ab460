"""``speechadapt adapters``: what is done with adapters that are already trained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechadapt.adapters.average import average
from speechadapt.model import load
from speechadapt.store import load_adapter, save_adapter

_AVERAGE_EXAMPLES = """example:
  speechadapt train --data data/be/train --dev data/be/dev --name be --out exp/be/plain
  speechadapt train --data data/be/train --dev data/be/dev --name be --speed 0.9 1 1.1 \\
      --steps 240 --out exp/be/speed
  speechadapt adapters average exp/be/plain/adapter exp/be/speed/adapter --out exp/be/adapter

The runs must have started alike (the same --seed, or the same --init)."""


def configure_adapters(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per thing that can be done."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    help_text = "several runs as one adapter, often better than each"
    action = actions.add_parser("average", help=help_text, description=help_text)
    action.epilog = _AVERAGE_EXAMPLES
    action.formatter_class = argparse.RawDescriptionHelpFormatter
    action.add_argument("adapters", nargs="+", metavar="ADAPTER", help="folders of adapters")
    action.add_argument("--base", default="openai/whisper-base", help="hub id or folder")
    action.add_argument("--name", help="how routes call it (default: the first one's name)")
    action.add_argument("--out", required=True, type=Path, help="folder of the new adapter")
    action.set_defaults(run=_average)


def _average(args: argparse.Namespace) -> int:
    backbone = load(args.base).backbone
    adapters = [load_adapter(folder, backbone) for folder in args.adapters]
    starts = {(a.info.training.get("seed"), a.info.training.get("init")) for a in adapters}
    if len(starts) > 1:
        print(
            "speechadapt: warning: the runs did not start alike (their seed or --init differs), "
            "so their average is seldom good; measure it",
            file=sys.stderr,
        )
    result = average(args.name or adapters[0].name, adapters)
    save_adapter(result, args.out)
    print(f"adapter {result.name}: the average of {len(adapters)}, in {args.out}")
    return 0
