"""``speechadapt adapters``: what is done with adapters that are already trained."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from speechadapt.adapters.average import average
from speechadapt.cli.actions import add_action, add_base, add_one, add_out, saved
from speechadapt.cli.exchange import configure_exchange
from speechadapt.errors import AdapterError
from speechadapt.interop.foreign import CONFIG_FILE as FOREIGN_FILE
from speechadapt.lowbit import BITS
from speechadapt.model import load
from speechadapt.store import (
    CONFIG_FILE,
    FILES,
    TENSOR_FILE,
    card,
    load_adapter,
    read_description,
    save_adapter,
)

_AVERAGE_EXAMPLES = """example:
  speechadapt train --data data/be/train --dev data/be/dev --name be --out exp/be/plain
  speechadapt train --data data/be/train --dev data/be/dev --name be --speed 0.9 1 1.1 \\
      --steps 240 --out exp/be/speed
  speechadapt adapters average exp/be/plain/adapter exp/be/speed/adapter --out exp/be/adapter

The runs must have started alike (the same --seed, or the same --init)."""

_LIST_EXAMPLES = """examples:
  speechadapt adapters list exp
  speechadapt adapters list egs/tuxpaint/asr1/adapters"""

_INFO_EXAMPLES = """example:
  speechadapt adapters info exp/be/adapter"""

_DIFF_EXAMPLES = """example:
  speechadapt adapters diff exp/be/adapter exp/be/speed/adapter"""

_PACK_EXAMPLES = """example:
  speechadapt adapters pack exp/be/adapter --bits 8 --out exp/be/adapter8

16 bits halve a file and 8 bits quarter it with hardly a change; 1 bit changes what the adapter
does: measure it."""


def configure_adapters(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per thing that can be done."""
    parser.epilog = "speechadapt adapters ACTION --help has examples."
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    action = partial(add_action, actions)
    add = action("list", _list, "adapters below a folder", _LIST_EXAMPLES)
    add.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look")

    add = action("info", _info, "what is known of an adapter: its card", _INFO_EXAMPLES)
    add_one(add)
    add_base(add)

    add = action("diff", _diff, "in what two adapters differ", _DIFF_EXAMPLES)
    add.add_argument("adapters", nargs=2, metavar="ADAPTER", help="folders of adapters")
    add_base(add)

    text = "several runs as one adapter, often better than each"
    add = action("average", _average, text, _AVERAGE_EXAMPLES)
    add.add_argument("adapters", nargs="+", metavar="ADAPTER", help="folders of adapters")
    add.add_argument("--name", help="how routes call it (default: the first one's name)")
    add_base(add)
    add_out(add, "folder of the new adapter", *FILES)

    add = action("pack", _pack, "the same adapter in a smaller file", _PACK_EXAMPLES)
    add_one(add)
    add_base(add)
    add.add_argument(
        "--bits", type=int, choices=(16, *BITS), default=8, help="of a weight (default 8)"
    )
    add_out(add, "folder of the new adapter", *FILES)

    configure_exchange(action)


def _list(args: argparse.Namespace) -> int:
    rows, damaged = [["name", "method", "kind", "language", "base", "folder"]], []
    for folder in args.folders:
        if not folder.is_dir():
            raise AdapterError(f"{folder}: no such folder; give one that holds adapters")
        for file in sorted(folder.rglob(CONFIG_FILE)):
            if (file.parent / FOREIGN_FILE).is_file():
                continue  # exported to another library
            try:
                description = read_description(file.parent)
            except AdapterError as error:
                damaged.append(error)
                continue
            info = description["info"]
            cells = (
                description["name"],
                description["config"].get("method"),
                *(info.get(key) for key in ("kind", "language", "base")),
                file.parent,
            )
            rows.append(["-" if cell is None else str(cell) for cell in cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(padded).rstrip())
    for problem in damaged:
        print(f"speechadapt: {problem}", file=sys.stderr)
    return 2 if damaged else 0


def _info(args: argparse.Namespace) -> int:
    adapter = load_adapter(args.adapter, load(args.base).backbone)
    print(card(adapter), end="")
    print("\n## Settings\n")
    for key, value in adapter.config.to_dict().items():
        print(f"- {key}: {value}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    backbone = load(args.base).backbone
    first, second = (load_adapter(folder, backbone) for folder in args.adapters)
    for title, pair in (
        ("config", (first.config.to_dict(), second.config.to_dict())),
        ("head", [each.head.to_dict() if each.head else {} for each in (first, second)]),
        ("info", (vars(first.info), vars(second.info))),
    ):
        for line in _differences(title, *pair):
            print(line)
    theirs = dict(second.named_tensors())
    compared = 0
    for key, tensor in first.named_tensors():
        if key in theirs and theirs[key].shape == tensor.shape:
            compared += 1
            if not tensor.is_floating_point():
                if changed := int((tensor != theirs[key]).sum()):
                    print(f"{key}: {changed} of {tensor.numel()} bytes differ")
                continue
            distance = float(torch.linalg.vector_norm(tensor - theirs[key]))
            size = float(torch.linalg.vector_norm(tensor))
            if distance:
                print(f"{key}: differs by {distance:.4g}, its own norm is {size:.4g}")
    alone = len(dict(first.named_tensors())) + len(theirs) - 2 * compared
    print(f"{compared} tensors of the same shape, {alone} that only one of them has")
    return 0


def _differences(title: str, first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [
        f"{title}.{key}: {first.get(key)!r} | {second.get(key)!r}"
        for key in sorted(first | second)
        if first.get(key) != second.get(key)
    ]


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
    return saved(result, args.out, f"the average of {len(adapters)}")


def _pack(args: argparse.Namespace) -> int:
    adapter = load_adapter(args.adapter, load(args.base).backbone)
    save_adapter(adapter, args.out, torch.float16, args.bits if args.bits in BITS else None)
    size = (args.out / TENSOR_FILE).stat().st_size
    print(f"adapter {adapter.name}: {size:,} bytes, in {args.out}")
    return 0
