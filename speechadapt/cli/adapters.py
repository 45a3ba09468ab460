"""``speechadapt adapters``: what is done with adapters that are already trained."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.average import average
from speechadapt.adapters.lora import LoraConfig
from speechadapt.errors import AdapterError
from speechadapt.files import replacing
from speechadapt.interop.extraction import extract_lora
from speechadapt.interop.formats import export_adapter, import_adapter
from speechadapt.interop.merging import merge
from speechadapt.lowbit import BITS
from speechadapt.model import load
from speechadapt.store import (
    CONFIG_FILE,
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

_EXPORT_EXAMPLES = """example:
  speechadapt adapters export exp/be/adapter --out exp/be/peft

PEFT, transformers (model.load_adapter) and vLLM read what is written. LoRA only: those libraries
have none of the other families."""

_IMPORT_EXAMPLES = """example:
  speechadapt adapters import ./whisper-lora --name be --language be --out exp/be/adapter

What the format can hold and our LoRA cannot (DoRA, changed biases, saved modules) is refused."""

_MERGE_EXAMPLES = """example:
  speechadapt adapters merge exp/be/adapter --out exp/be/whisper-be
  ct2-transformers-converter --model exp/be/whisper-be --output_dir exp/be/whisper-be-ct2

The folder is a plain transformers checkpoint. LoRA, Hydra, (IA)3 and BitFit adapters merge."""

_EXTRACT_EXAMPLES = """example:
  speechadapt adapters extract exp/be/finetune/model --rank 32 --name be --out exp/be/lora

The change of each linear layer is approximated by its largest singular values; how much of it the
LoRA holds, and what changed outside linear layers, is printed."""


def configure_adapters(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per thing that can be done."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(
        name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        made.epilog, made.formatter_class = examples, argparse.RawDescriptionHelpFormatter
        made.set_defaults(run=run)
        return made

    add = action("list", _list, "adapters below a folder", _LIST_EXAMPLES)
    add.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where to look")

    add = action("info", _info, "what is known of an adapter: its card", _INFO_EXAMPLES)
    _one(add)
    _base(add)

    add = action("diff", _diff, "in what two adapters differ", _DIFF_EXAMPLES)
    add.add_argument("adapters", nargs=2, metavar="ADAPTER", help="folders of adapters")
    _base(add)

    text = "several runs as one adapter, often better than each"
    add = action("average", _average, text, _AVERAGE_EXAMPLES)
    add.add_argument("adapters", nargs="+", metavar="ADAPTER", help="folders of adapters")
    add.add_argument("--name", help="how routes call it (default: the first one's name)")
    _base(add)
    _out(add, "folder of the new adapter")

    add = action("pack", _pack, "the same adapter in a smaller file", _PACK_EXAMPLES)
    _one(add)
    _base(add)
    add.add_argument(
        "--bits", type=int, choices=(16, *BITS), default=8, help="of a weight (default 8)"
    )
    _out(add, "folder of the new adapter")

    add = action("export", _export, "a LoRA in PEFT's format", _EXPORT_EXAMPLES)
    _one(add)
    _base(add)
    _out(add, "folder of the PEFT adapter")

    add = action("import", _import, "a LoRA from PEFT's format", _IMPORT_EXAMPLES)
    add.add_argument("path", type=Path, help="folder of PEFT or AdapterHub, or a file of MMS")
    add.add_argument("--name", help="how routes call it (default: as its folder)")
    add.add_argument("--language", help="Whisper's code of the language it was trained with")
    _base(add)
    _out(add, "folder of the new adapter")

    add = action("merge", _merge, "base and adapter as one plain checkpoint", _MERGE_EXAMPLES)
    _one(add)
    _base(add)
    _out(add, "folder of the checkpoint")

    add = action("extract", _extract, "a LoRA from a fine-tuned base", _EXTRACT_EXAMPLES)
    add.add_argument("tuned", help="hub id or folder of the fine-tuned base")
    add.add_argument("--rank", type=int, default=32, help="of the LoRA (default 32)")
    add.add_argument("--points", nargs="+", help="layers to hold (default: every linear layer)")
    add.add_argument("--name", required=True, help="how routes call it")
    add.add_argument("--language", help="Whisper's code of the language it was tuned to")
    _base(add)
    _out(add, "folder of the new adapter")


def _one(action: argparse.ArgumentParser) -> None:
    action.add_argument("adapter", help="folder of the adapter")


def _base(action: argparse.ArgumentParser) -> None:
    action.add_argument("--base", default="openai/whisper-base", help="hub id or folder")


def _out(action: argparse.ArgumentParser, text: str) -> None:
    action.add_argument("--out", required=True, type=Path, help=text)


def _list(args: argparse.Namespace) -> int:
    rows = [["name", "method", "kind", "language", "base", "folder"]]
    for folder in args.folders:
        if not folder.is_dir():
            raise AdapterError(f"{folder}: no such folder; give one that holds adapters")
        for file in sorted(folder.rglob(CONFIG_FILE)):
            description = read_description(file.parent)
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
    return 0


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
        ("info", (vars(first.info), vars(second.info))),
    ):
        for line in _differences(title, *pair):
            print(line)
    theirs = dict(second.named_tensors())
    compared = 0
    for key, tensor in first.named_tensors():
        if key in theirs and theirs[key].shape == tensor.shape:
            compared += 1
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
    return _saved(result, args.out, f"the average of {len(adapters)}")


def _pack(args: argparse.Namespace) -> int:
    adapter = load_adapter(args.adapter, load(args.base).backbone)
    save_adapter(adapter, args.out, torch.float16, args.bits if args.bits in BITS else None)
    size = (args.out / TENSOR_FILE).stat().st_size
    print(f"adapter {adapter.name}: {size:,} bytes, in {args.out}")
    return 0


def _export(args: argparse.Namespace) -> int:
    backbone = load(args.base).backbone
    adapter = load_adapter(args.adapter, backbone)
    library = export_adapter(adapter, backbone, args.out)
    print(f"adapter {adapter.name}: for {library}, in {args.out}")
    return 0


def _import(args: argparse.Namespace) -> int:
    adapter, library = import_adapter(args.path, load(args.base).backbone, args.name)
    adapter.info.language = args.language or adapter.info.language
    return _saved(adapter, args.out, f"{adapter.parameter_count:,} parameters from {library}")


def _merge(args: argparse.Namespace) -> int:
    backbone = load(args.base).backbone
    adapter = load_adapter(args.adapter, backbone)
    merged = merge(backbone, adapter)
    with replacing(args.out) as temporary:
        backbone.save(merged, temporary)
    print(f"adapter {adapter.name}: merged into {args.base}, in {args.out}")
    return 0


def _extract(args: argparse.Namespace) -> int:
    base, tuned = load(args.base).backbone, load(args.tuned).backbone
    points = args.points or dict.fromkeys(site.point for site in base.module_sites().values())
    info = AdapterInfo(
        language=args.language,
        trailing_silence=base.frozen_trailing_silence,
        base=args.base,
        fingerprint=base.fingerprint,
        training={"extracted from": args.tuned, "rank": args.rank},
    )
    config = LoraConfig(rank=args.rank, points=tuple(points))
    found = extract_lora(args.name, base, tuned, config, info)
    least = min(found.energy, key=lambda site: found.energy[site])
    mean = sum(found.energy.values()) / len(found.energy)
    print(
        f"it holds {mean:.1%} of the squared change of a layer on average, "
        f"{found.energy[least]:.1%} at least ({least})"
    )
    if found.left_out:
        print(f"not held: {len(found.left_out)} parameters, such as {found.left_out[0]}")
    return _saved(found.adapter, args.out, f"{found.adapter.parameter_count:,} parameters")


def _saved(adapter: Adapter, out: Path, what: str) -> int:
    save_adapter(adapter, out)
    print(f"adapter {adapter.name}: {what}, in {out}")
    return 0
