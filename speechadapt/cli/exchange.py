"""``speechadapt adapters``: to and from other libraries, bases and the hub."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from speechadapt.adapters.adapter import AdapterInfo
from speechadapt.adapters.lora import LoraConfig
from speechadapt.backbones.base import CHECKPOINT_FILES
from speechadapt.cli.actions import add_base, add_one, add_out, saved
from speechadapt.errors import ConfigError
from speechadapt.files import replacing
from speechadapt.interop.extraction import extract_lora
from speechadapt.interop.formats import export_adapter, import_adapter
from speechadapt.interop.merging import merge
from speechadapt.model import load
from speechadapt.sharing import pull, push
from speechadapt.store import FILES, load_adapter

_EXPORT_EXAMPLES = """examples:
  speechadapt adapters export exp/be/adapter --out exp/be/peft
  speechadapt adapters export exp/bel --base facebook/mms-1b-all --out exp/bel/mms

A LoRA is written for PEFT, transformers (model.load_adapter) and vLLM; a language adapter of MMS as
adapter.NAME.safetensors and its vocabulary, for the model's folder. Those libraries have none of
the other families."""

_IMPORT_EXAMPLES = """examples:
  speechadapt adapters import ./whisper-lora --name be --language be --out exp/be/adapter
  speechadapt adapters import ./seq_bn --language ro --out exp/ro/adapter
  speechadapt adapters import mms/adapter.bel.safetensors --base facebook/mms-1b-all --out exp/bel

LoRA from PEFT, bottleneck adapters of Whisper from AdapterHub, language adapters of MMS (with
vocab.json beside the file). What our families cannot express is refused, and so are pickles: save
with use_safetensors=True in AdapterHub."""

_MERGE_EXAMPLES = """example:
  speechadapt adapters merge exp/be/adapter --out exp/be/whisper-be
  ct2-transformers-converter --model exp/be/whisper-be --output_dir exp/be/whisper-be-ct2

The folder is a plain transformers checkpoint. LoRA, Hydra, (IA)3 and BitFit adapters merge."""

_EXTRACT_EXAMPLES = """example:
  speechadapt adapters extract exp/be/finetune/model --rank 32 --name be --out exp/be/lora

The change of each linear layer is approximated by its largest singular values; how much of it the
LoRA holds, and what changed outside linear layers, is printed."""

_PUSH_EXAMPLES = """examples:
  speechadapt adapters push exp/be/adapter somebody/whisper-base-be --licence cc-by-4.0
  speechadapt adapters push exp/be/adapter somebody/trial --private --message "240 steps"

Log in first with `hf auth login`. The description, the tensors and the card are uploaded, nothing
else of the folder."""

_PULL_EXAMPLES = """examples:
  speechadapt adapters pull somebody/whisper-base-be --out exp/be/adapter
  speechadapt adapters pull somebody/whisper-base-be@v2 --out exp/be/v2
  speechadapt transcribe clip.wav --adapter somebody/whisper-base-be"""


def configure_exchange(action: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the actions that exchange adapters, each made by ``action``."""
    add = action("export", _export, "an adapter for another library", _EXPORT_EXAMPLES)
    add_one(add)
    add_base(add)
    add_out(add, "folder of the exported adapter", "*")  # more than that the library knows

    add = action("import", _import, "an adapter of another library", _IMPORT_EXAMPLES)
    add.add_argument("path", type=Path, help="folder of PEFT or AdapterHub, or a file of MMS")
    add.add_argument("--name", help="how routes call it (default: as it is called there)")
    add.add_argument("--language", help="code of the language it was trained with")
    add_base(add)
    add_out(add, "folder of the new adapter", *FILES)

    add = action("merge", _merge, "base and adapter as one plain checkpoint", _MERGE_EXAMPLES)
    add_one(add)
    add_base(add)
    add_out(add, "folder of the checkpoint", *CHECKPOINT_FILES)

    add = action("extract", _extract, "a LoRA from a fine-tuned base", _EXTRACT_EXAMPLES)
    add.add_argument("tuned", help="hub id or folder of the fine-tuned base")
    add.add_argument("--rank", type=int, default=32, help="of the LoRA (default 32)")
    add.add_argument("--points", nargs="+", help="layers to hold (default: every linear layer)")
    add.add_argument("--name", required=True, help="how routes call it")
    add.add_argument("--language", help="Whisper's code of the language it was tuned to")
    add_base(add)
    add_out(add, "folder of the new adapter", *FILES)

    add = action("push", _push, "upload an adapter to the Hugging Face hub", _PUSH_EXAMPLES)
    add.add_argument("adapter", type=Path, help="folder of the adapter")
    add.add_argument("repository", help="owner/name; made if there is none")
    add.add_argument("--private", action="store_true", help="hide a new repository from others")
    add.add_argument("--message", help="of the commit (default: the adapter's name)")
    add.add_argument("--licence", metavar="ID", help="the adapter's, as the hub calls it")

    add = action("pull", _pull, "download an adapter from the Hugging Face hub", _PULL_EXAMPLES)
    add.add_argument("repository", help="owner/name, or owner/name@branch, tag or commit")
    add_out(add, "folder of the adapter", *FILES)


def _export(args: argparse.Namespace) -> int:
    backbone = load(args.base).backbone
    adapter = load_adapter(args.adapter, backbone)
    library = export_adapter(adapter, backbone, args.out)
    print(f"adapter {adapter.name}: for {library}, in {args.out}")
    return 0


def _import(args: argparse.Namespace) -> int:
    adapter, library = import_adapter(args.path, load(args.base).backbone, args.name)
    adapter.info.language = args.language or adapter.info.language
    return saved(adapter, args.out, f"{adapter.parameter_count:,} parameters from {library}")


def _merge(args: argparse.Namespace) -> int:
    if args.out.resolve() == Path(args.base).resolve():
        raise ConfigError(f"--out {args.out}: is the base itself, which stays; give a new folder")
    backbone = load(args.base).backbone
    adapter = load_adapter(args.adapter, backbone)
    merged = merge(backbone, adapter)
    with replacing(args.out, *CHECKPOINT_FILES) as temporary:
        backbone.save(merged, temporary, adapter.head)
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
    return saved(found.adapter, args.out, f"{found.adapter.parameter_count:,} parameters")


def _push(args: argparse.Namespace) -> int:
    url = push(
        args.adapter,
        args.repository,
        private=args.private,
        message=args.message,
        licence=args.licence,
    )
    print(f"{args.adapter}: pushed to {url}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    commit = pull(args.repository, args.out)
    print(f"{args.repository}: commit {commit[:12]}, in {args.out}")
    return 0
