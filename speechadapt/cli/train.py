"""``speechadapt train`` (one adapter) and ``speechadapt finetune`` (the whole model)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from speechadapt.adapters.adapter import AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import FAMILIES, PRESETS, preset
from speechadapt.backbones.base import Backbone
from speechadapt.cli.datasets import Data, read_sets
from speechadapt.cli.newheads import add_heads
from speechadapt.cli.objectives import (
    KINDS,
    Task,
    adapter_task,
    add_objective,
    base_task,
)
from speechadapt.cli.options import add_fields, build, given, read_yaml
from speechadapt.cli.targets import adapter_target, hyper_target
from speechadapt.errors import ConfigError
from speechadapt.files import check_place
from speechadapt.lowbit import BITS
from speechadapt.model import SpeechModel, load
from speechadapt.store import load_adapter
from speechadapt.training.config import Augmentation, TrainConfig
from speechadapt.training.examples import TrainingSet
from speechadapt.training.state import settings_of
from speechadapt.training.target import FullTarget, Target
from speechadapt.training.trainer import Trainer

_TRAIN_EXAMPLES = """examples:
  speechadapt train --base openai/whisper-base --data data/be/train --dev data/be/dev \\
      --adapter houlsby --bottleneck 64 --out exp/be
  speechadapt train --data data/be/train data/ro/train --out exp/shared
  speechadapt train --data data/be/train --init exp/shared/adapter --out exp/be --steps 100
  speechadapt train --data data/*/train --hyper 64 --out exp/all
  speechadapt train --data data/ro/train --dev data/ro/dev --out exp/ro --steps 150 --seed 1
  speechadapt train --data data/be/train --teacher openai/whisper-medium --out exp/be
CTC (wav2vec2 family, or Whisper's encoder with --objective ctc), labels, values, noise:
  speechadapt train --base facebook/wav2vec2-base --data data/be/train --adapter lora --out exp/be
  speechadapt train --base facebook/wav2vec2-base --data data/be/train --vocabulary bpe --out exp/be
  speechadapt train --objective classify --labels utt2lang --data data/all --out exp/languages
  speechadapt train --base facebook/wav2vec2-base --objective classify --labels utt2category \\
      --multi-label --adapter head --layer-weights --data data/sounds --out exp/sounds
  speechadapt train --objective regress --labels utt2mos --data data/mos --out exp/mos
  speechadapt train --objective features --noise data/babble --data data/any --out exp/babble

The same command goes on where it was stopped or killed, and ends with the same adapter.
The adapter is written to OUT/adapter, the progress to OUT/log.jsonl and OUT/tensorboard."""

_FINETUNE_EXAMPLES = """examples:
  speechadapt finetune --data data/be/train --dev data/be/dev --learning-rate 1e-5 --out exp/be_full
  speechadapt finetune --base ./small-wav2vec2 --data data/*/train --time-masks 4 --out exp/base
  speechadapt finetune --base ./small-ast --labels utt2category --multi-label --data data/sounds \\
      --out exp/ast

Trains every parameter of the base, with the CTC head or classifier of its checkpoint: what adapters
are compared with, or a small base of your own from a folder that a config was saved to. The new
base is written to OUT/model; use it with `speechadapt transcribe --base OUT/model`."""


def configure_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``."""
    parser.epilog = _TRAIN_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    adapter = parser.add_argument_group("adapter")
    adapter.add_argument(
        "--adapter",
        metavar="PRESET",
        help=f"{', '.join(PRESETS)} (default: what --init is, else the best of its kind of base in "
        "docs/adapters.md)",
    )
    adapter.add_argument("--name", help="how routes call it (default: the name of OUT)")
    adapter.add_argument(
        "--init", metavar="DIR", help="start from this adapter, e.g. one of many languages"
    )
    adapter.add_argument(
        "--bits",
        type=int,
        choices=BITS,
        help="train the adapter to be stored with so many bits a weight (default: 32)",
    )
    adapter.add_argument(
        "--hyper",
        type=int,
        metavar="WIDTH",
        help="one network of this width makes an adapter for each language of the data; they are "
        "written to OUT/adapter/LANGUAGE",
    )
    adapter.add_argument("--points", nargs="+", help="where in a layer, e.g. attn.q ffn.out")
    adapter.add_argument("--stacks", nargs="+", help="encoder, decoder (default: both)")
    adapter.add_argument("--top-layers", type=int, metavar="N", help="the last N layers only")
    for config, _ in FAMILIES.values():
        add_fields(adapter, config, "as the preset has it")
    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--objective",
        choices=tuple(KINDS),
        help="whisper: its decoder's cross entropy (default for Whisper); ctc: over characters or "
        "pieces of words (default for the wav2vec2 family); classify: --labels (default for AST); "
        "regress: a number, --labels utt2mos; features: to undo --noise, without transcripts. "
        "All but whisper and features make a head, which the adapter brings along",
    )
    add_objective(objective)
    add_heads(objective)
    _add_common(parser)
    parser.set_defaults(run=_train)


def configure_finetune(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``finetune``."""
    parser.epilog = _FINETUNE_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--objective",
        choices=("whisper", "ctc", "classify"),
        help="what the head of the checkpoint is for (default: what its kind of base does)",
    )
    add_objective(objective)
    _add_common(parser)
    parser.set_defaults(run=_finetune)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default="openai/whisper-base", help="hub id or folder")
    sets: dict[str, Any] = {"nargs": "+", "metavar": "DIR"}
    parser.add_argument("--data", required=True, help="Kaldi data dirs or JSONL manifests", **sets)
    parser.add_argument(
        "--dev", default=[], help="development sets; their error decides which step is kept", **sets
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of this run")
    parser.add_argument("--config", help="YAML with sections adapter, training, augmentation")
    parser.add_argument("--language", help="Whisper's code, for data without utt2lang")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    add_fields(parser.add_argument_group("training"), TrainConfig)
    augmentation = parser.add_argument_group("augmentation (off by default)")
    augmentation.add_argument("--speed", type=float, nargs="+", help="speeds, e.g. 0.9 1 1.1")
    augmentation.add_argument(
        "--snr", type=float, nargs=2, metavar="DB", help="lowest and highest SNR of --noise"
    )
    add_fields(augmentation, Augmentation)
    augmentation.add_argument("--noise", help="data dir or manifest of noise recordings")


def _train(args: argparse.Namespace) -> int:
    if args.adapter:
        preset(args.adapter)  # a wrong name is told before the base is loaded
    families = tuple(config for config, _ in FAMILIES.values())
    settings = _settings(args, adapter=families)
    config = _train_config(args, settings)
    model, data, dev = _load(args)
    adapter_config = _adapter_config(args, model.backbone, settings.get("adapter", {}))
    task = adapter_task(args, model, data, dev, config, adapter_config)
    kind = KINDS[task.settings["objective"]]
    if kind != "language" or task.head:  # no other objective reaches a decoder
        adapter_config = _encoder_only(adapter_config)

    languages = {utterance.language or args.language for utterance in data.utterances}
    info = AdapterInfo(
        kind=kind,
        language=next(iter(languages)) if kind == "language" and len(languages) == 1 else None,
        trailing_silence=config.trailing_silence,
        base=args.base,
        fingerprint=model.backbone.fingerprint,
        licence=_licence(args.data),
        training={
            "data": f"{' '.join(args.data)}, {data}",
            **({"init": args.init} if args.init else {}),
            "command": shlex.join(["speechadapt", *sys.argv[1:]]),
            **task.settings,
            **{k: v for k, v in dataclasses.asdict(config).items() if k != "augmentation"},
        },
    )
    make = hyper_target if args.hyper is not None else adapter_target
    target, key = make(args, model, adapter_config, info, languages, task)
    return _run(args, model, target, task, data, dev, config, key)


def _encoder_only(config: AdapterConfig) -> AdapterConfig:
    if config.stacks not in (None, ("encoder",)):
        raise ConfigError(
            f"--stacks {' '.join(config.stacks or ())}: this objective reads the encoder alone, so "
            "nothing in a decoder would be learnt; use --stacks encoder"
        )
    return dataclasses.replace(config, stacks=("encoder",))


def _adapter_config(
    args: argparse.Namespace, backbone: Backbone, settings: dict[str, Any]
) -> AdapterConfig:
    """The adapter asked for, with what the YAML file and the command line say otherwise."""
    if args.init and not args.adapter:
        chosen = load_adapter(args.init, backbone).config
    else:
        chosen = preset(args.adapter or backbone.best_adapter)
    fields = [field.name for field in dataclasses.fields(chosen)]
    options = (name for config, _ in FAMILIES.values() for name in given(args, config))
    asked = {name: f"{args.config}: {name}" for name in settings}
    asked |= {name: "--" + name.replace("_", "-") for name in options}
    for name, where in asked.items():
        if name not in fields:
            raise ConfigError(
                f"{where}: {args.adapter or chosen.method} has no such setting; it has "
                f"{', '.join(fields)}"
            )
    config = type(chosen)
    built: AdapterConfig = build(config, dataclasses.asdict(chosen), settings, given(args, config))
    return built


def _finetune(args: argparse.Namespace) -> int:
    config = _train_config(args, _settings(args))
    model, data, dev = _load(args)
    task = base_task(args, model, data, dev, config)
    key = {"base": model.backbone.fingerprint}
    return _run(args, model, FullTarget(model), task, data, dev, config, key)


def _settings(args: argparse.Namespace, **more: tuple[type, ...]) -> dict[str, dict[str, Any]]:
    sections = {"training": (TrainConfig,), "augmentation": (Augmentation,), **more}
    return read_yaml(args.config, sections) if args.config else {}


def _train_config(args: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> TrainConfig:
    augmentation = build(Augmentation, settings.get("augmentation", {}), given(args, Augmentation))
    return build(
        TrainConfig,
        settings.get("training", {}),
        given(args, TrainConfig),
        {"augmentation": augmentation},
    )


def _load(args: argparse.Namespace) -> tuple[SpeechModel[Any], Data, Data]:
    # Data first: a wrong path is told at once, not after the model has been loaded.
    check_place(args.out / "result.json")
    data, dev = read_sets(args.data, args.labels), read_sets(args.dev, args.labels)
    return load(args.base, device=args.device), data, dev


def _run(
    args: argparse.Namespace,
    model: SpeechModel[Any],
    target: Target,
    task: Task,
    data: Data,
    dev: Data,
    config: TrainConfig,
    settings: dict[str, Any],
) -> int:
    below = target.layers_below(model.backbone)
    if model.bank.call(
        target.routes(data.utterances[:1])
    ).reads_layers:  # by a head that weighs them all
        below = None
    listener = task.objective.listener
    examples = TrainingSet(model.backbone, data.utterances, config, listener, below)
    settings = settings_of(
        **settings,
        **task.settings,
        training=config,
        data=str(data),
        dev=str(dev),
        language=args.language,
    )
    ranking = task.dev
    trainer = Trainer(
        model,
        target,
        examples,
        task.objective,
        config,
        args.out,
        settings,
        (lambda: ranking.error(target.routes(dev.utterances))) if ranking else None,
        ranking.metric if ranking else "error",
    )
    print(json.dumps(vars(trainer.run())))
    return 0


def _licence(data: list[str]) -> str:
    files = [Path(folder) / "LICENCE" for folder in data]
    lines = [file.read_text(encoding="utf-8").splitlines()[0] for file in files if file.is_file()]
    return "; ".join(dict.fromkeys(lines))
