"""``speechadapt train`` (one adapter) and ``speechadapt finetune`` (the whole model)."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import FAMILIES, PRESETS, family_of, preset
from speechadapt.backbones.ast import ASTBackbone
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.cli.options import add_fields, build, given, read_yaml
from speechadapt.data import Utterance, load_utterances
from speechadapt.errors import ConfigError, DataError
from speechadapt.heads.ctc import CtcHead, vocabulary_of
from speechadapt.heads.head import Head
from speechadapt.lowbit import BITS
from speechadapt.model import SpeechModel, load
from speechadapt.store import TENSOR_FILE, load_adapter
from speechadapt.training.config import Augmentation, TrainConfig
from speechadapt.training.dev import DevSet
from speechadapt.training.examples import TrainingSet
from speechadapt.training.objective import CtcObjective, Objective, WhisperObjective
from speechadapt.training.state import settings_of
from speechadapt.training.target import AdapterTarget, FullTarget, Target
from speechadapt.training.trainer import Trainer

_TRAIN_EXAMPLES = """examples:
  speechadapt train --base openai/whisper-base --data data/be/train --dev data/be/dev \\
      --adapter houlsby --bottleneck 64 --out exp/be
  speechadapt train --data data/be/train data/ro/train --out exp/shared
  speechadapt train --data data/be/train --init exp/shared/adapter --out exp/be --steps 100
  speechadapt train --data data/ro/train --dev data/ro/dev --out exp/ro --steps 150 --seed 1
  speechadapt train --base facebook/wav2vec2-base --data data/be/train --adapter lora --out exp/be

The same command goes on where it was stopped or killed, and ends with the same adapter.
The adapter is written to OUT/adapter, the progress to OUT/log.jsonl and OUT/tensorboard."""

_FINETUNE_EXAMPLES = """examples:
  speechadapt finetune --data data/be/train --dev data/be/dev --learning-rate 1e-5 --out exp/be_full

Trains every parameter of the base: what adapters are compared with. The new base is written to
OUT/model; use it with `speechadapt transcribe --base OUT/model`."""


def configure_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``."""
    parser.epilog = _TRAIN_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    adapter = parser.add_argument_group("adapter")
    adapter.add_argument("--adapter", default="pfeiffer", metavar="PRESET", help=", ".join(PRESETS))
    adapter.add_argument("--name", help="how routes call it (default: the name of OUT)")
    adapter.add_argument(
        "--objective",
        choices=("whisper", "ctc"),
        help="whisper: its decoder's cross entropy (default for Whisper); ctc: a new head over the "
        "characters of the data, which the adapter brings along (default for the wav2vec2 family)",
    )
    adapter.add_argument(
        "--init", metavar="DIR", help="start from this adapter, e.g. one of many languages"
    )
    adapter.add_argument(
        "--bits",
        type=int,
        choices=BITS,
        help="train the adapter to be stored with so many bits a weight (default: 32)",
    )
    adapter.add_argument("--points", nargs="+", help="where in a layer, e.g. attn.q ffn.out")
    adapter.add_argument("--stacks", nargs="+", help="encoder, decoder (default: both)")
    adapter.add_argument("--top-layers", type=int, metavar="N", help="the last N layers only")
    for config, _ in FAMILIES.values():
        add_fields(adapter, config, "as the preset has it")
    _add_common(parser)
    parser.set_defaults(run=_train)


def configure_finetune(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``finetune``."""
    parser.epilog = _FINETUNE_EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_common(parser)
    parser.set_defaults(run=_finetune)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default="openai/whisper-base", help="hub id or folder")
    sets: dict[str, Any] = {"nargs": "+", "metavar": "DIR"}
    parser.add_argument("--data", required=True, help="Kaldi data dirs or JSONL manifests", **sets)
    parser.add_argument(
        "--dev", default=[], help="development sets; their WER decides which step is kept", **sets
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
    chosen = preset(args.adapter)
    sections = {"adapter": type(chosen), "training": TrainConfig, "augmentation": Augmentation}
    settings = read_yaml(args.config, sections) if args.config else {}
    adapter_config = _adapter_config(args, chosen, settings.get("adapter", {}))
    config = _train_config(args, settings)
    model, data, dev = _load(args)

    languages = {utterance.language or args.language for utterance in data}
    info = AdapterInfo(
        language=languages.pop() if len(languages) == 1 else None,
        trailing_silence=config.trailing_silence,
        base=args.base,
        fingerprint=model.backbone.fingerprint,
        licence=_licence(args.data),
        training={
            "data": f"{' '.join(args.data)}, {_size(data)}",
            **({"init": args.init} if args.init else {}),
            "command": shlex.join(["speechadapt", *sys.argv[1:]]),
            **{k: v for k, v in dataclasses.asdict(config).items() if k != "augmentation"},
        },
    )
    head = _head(args, model, data, config)
    adapter = Adapter.fresh(
        args.name or args.out.name,
        adapter_config,
        family_of(adapter_config),
        model.backbone.sites.values(),
        info,
        config.seed,
        head,
    )
    settings_key: dict[str, Any] = {
        "adapter": adapter.config.to_dict(),
        "base": model.backbone.fingerprint,
    }
    if args.init:
        adapter.start_from(load_adapter(args.init, model.backbone))
        stored = (Path(args.init) / TENSOR_FILE).read_bytes()
        settings_key["init"] = hashlib.sha256(stored).hexdigest()
    if args.bits:
        if not any(t.dim() > 1 for values in adapter.tensors.values() for t in values.values()):
            raise ConfigError(
                f"--bits {args.bits}: {args.adapter} has vectors only, which stay as they are; "
                "leave --bits out"
            )
        adapter.bits = settings_key["bits"] = info.training["bits"] = args.bits
    model.bank.add(adapter)
    share = adapter.parameter_count / model.backbone.parameter_count
    print(
        f"adapter {adapter.name}: {adapter.parameter_count:,} parameters, {share:.2%} of the base"
    )
    objective: Objective
    if isinstance(head, CtcHead):
        objective = CtcObjective(model.backbone, head, config.trailing_silence)
    else:
        objective = WhisperObjective(model.backbone, args.language)
    return _run(args, model, AdapterTarget(adapter), objective, data, dev, config, settings_key)


def _head(
    args: argparse.Namespace, model: SpeechModel[Any], data: list[Utterance], config: TrainConfig
) -> Head | None:
    """A new CTC head over the characters of the data, where that is the objective."""
    objective = args.objective
    if objective is None:
        objective = "whisper" if isinstance(model.backbone, WhisperBackbone) else "ctc"
    if objective == "whisper":
        if not isinstance(model.backbone, WhisperBackbone):
            raise ConfigError(f"--objective whisper: {args.base} has no decoder; use ctc")
        return None
    if isinstance(model.backbone, ASTBackbone):
        raise ConfigError(f"--objective ctc: {args.base} labels sounds and writes no text")
    vocabulary = vocabulary_of(utterance.text or "" for utterance in data)
    generator = torch.Generator().manual_seed(config.seed)
    return CtcHead.fresh(vocabulary, model.backbone.width, generator)


def _adapter_config(
    args: argparse.Namespace, chosen: AdapterConfig, settings: dict[str, Any]
) -> AdapterConfig:
    """The preset with what the YAML file and the command line say otherwise."""
    for other, _ in FAMILIES.values():
        foreign = set(given(args, other)) - {field.name for field in dataclasses.fields(chosen)}
        if foreign:
            option = "--" + min(foreign).replace("_", "-")
            raise ConfigError(
                f"{option}: {args.adapter} has no such setting; it has "
                f"{', '.join(field.name for field in dataclasses.fields(chosen))}"
            )
    config = type(chosen)
    built: AdapterConfig = build(config, dataclasses.asdict(chosen), settings, given(args, config))
    return built


def _finetune(args: argparse.Namespace) -> int:
    sections = {"training": TrainConfig, "augmentation": Augmentation}
    settings = read_yaml(args.config, sections) if args.config else {}
    config = _train_config(args, settings)
    model, data, dev = _load(args)

    settings_key = {"base": model.backbone.fingerprint}
    if not isinstance(model.backbone, WhisperBackbone):
        raise ConfigError(f"--base {args.base}: only a Whisper can be fine-tuned whole")
    objective = WhisperObjective(model.backbone, args.language)
    return _run(args, model, FullTarget(model), objective, data, dev, config, settings_key)


def _train_config(args: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> TrainConfig:
    augmentation = build(Augmentation, settings.get("augmentation", {}), given(args, Augmentation))
    return build(
        TrainConfig,
        settings.get("training", {}),
        given(args, TrainConfig),
        {"augmentation": augmentation},
    )


def _load(args: argparse.Namespace) -> tuple[SpeechModel, list[Utterance], list[Utterance]]:
    # Data first: a wrong path is told at once, not after the model has been loaded.
    data, dev = _read_sets(args.data), _read_sets(args.dev)
    if any(utterance.text is None for utterance in dev):
        raise ConfigError(f"--dev {' '.join(args.dev)}: has utterances without a transcript")
    model = load(args.base, device=args.device)
    return model, data, dev


def _read_sets(paths: list[str]) -> list[Utterance]:
    utterances: dict[str, Utterance] = {}
    for path in paths:
        for utterance in load_utterances(path):
            if utterance.id in utterances:
                raise DataError(
                    f"{path}: utterance {utterance.id} is in an earlier data set too; "
                    "name each set once, and give ids a prefix of their own"
                )
            utterances[utterance.id] = utterance
    return list(utterances.values())


def _run(
    args: argparse.Namespace,
    model: SpeechModel,
    target: Target,
    objective: Objective,
    data: list[Utterance],
    dev: list[Utterance],
    config: TrainConfig,
    settings: dict[str, Any],
) -> int:
    for utterance in data:
        objective.check(utterance)  # what cannot be learnt is told before training
    examples = TrainingSet(model.backbone, data, config)
    dev_set = DevSet(model, dev, args.language, config.trailing_silence) if dev else None
    settings = settings_of(
        **settings,
        training=config,
        data=_size(data),
        dev=_size(dev),
        language=args.language,
    )
    trainer = Trainer(
        model,
        target,
        examples,
        objective,
        config,
        args.out,
        settings,
        dev_wer=(lambda: dev_set.wer(target.route)) if dev_set else None,
    )
    print(json.dumps(vars(trainer.run())))
    return 0


def _size(utterances: list[Utterance]) -> str:
    seconds = sum(utterance.duration or 0.0 for utterance in utterances)
    return f"{len(utterances)} utterances, {seconds / 60:.1f} minutes"


def _licence(data: list[str]) -> str:
    files = [Path(folder) / "LICENCE" for folder in data]
    lines = [file.read_text(encoding="utf-8").splitlines()[0] for file in files if file.is_file()]
    return "; ".join(dict.fromkeys(lines))
