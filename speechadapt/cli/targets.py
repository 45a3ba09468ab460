"""What a run of ``speechadapt train`` trains, from options: an adapter, or a network that makes one
for each language."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import family_of
from speechadapt.cli.objectives import Task
from speechadapt.errors import ConfigError
from speechadapt.model import SpeechModel
from speechadapt.store import TENSOR_FILE, load_adapter
from speechadapt.training.hyper import HyperTarget
from speechadapt.training.target import AdapterTarget


def adapter_target(
    args: argparse.Namespace,
    model: SpeechModel[Any],
    config: AdapterConfig,
    info: AdapterInfo,
    languages: set[str | None],
    task: Task,
) -> tuple[AdapterTarget, dict[str, Any]]:
    """An adapter in the bank, and what decides the result beside the run's other settings.

    Args:
        args: Of the command.
        model: Gets the adapter.
        config: Of the adapter.
        info: What it is known by.
        languages: Of the data.
        task: Whose head the adapter brings along.

    Raises:
        ConfigError: The options do not go together.
        AdapterError: ``--init`` cannot be read.
    """
    adapter = Adapter.fresh(
        args.name or args.out.resolve().name,
        config,
        family_of(config),
        model.backbone.sites.values(),
        info,
        info.training["seed"],
        task.head,
    )
    key = {"adapter": adapter.config.to_dict(), "base": model.backbone.fingerprint}
    if args.init:
        adapter.start_from(load_adapter(args.init, model.backbone))
        stored = (Path(args.init) / TENSOR_FILE).read_bytes()
        key["init"] = hashlib.sha256(stored).hexdigest()
    if args.bits:
        if not any(t.dim() > 1 for values in adapter.tensors.values() for t in values.values()):
            raise ConfigError(
                f"--bits {args.bits}: {config.method} has vectors only, which stay as they are; "
                "leave --bits out"
            )
        adapter.bits = key["bits"] = info.training["bits"] = args.bits
    model.bank.add(adapter)
    share = adapter.parameter_count / model.backbone.parameter_count
    print(
        f"adapter {adapter.name}: {adapter.parameter_count:,} parameters, {share:.2%} of the base"
    )
    return AdapterTarget(adapter), key


def hyper_target(
    args: argparse.Namespace,
    model: SpeechModel[Any],
    config: AdapterConfig,
    info: AdapterInfo,
    languages: set[str | None],
    task: Task,
) -> tuple[HyperTarget, dict[str, Any]]:
    """The same for ``--hyper``."""
    for option in ("init", "bits", "name"):
        if getattr(args, option):
            raise ConfigError(f"--hyper makes new adapters, one a language; leave --{option} out")
    if task.head is not None:
        raise ConfigError("--hyper makes adapters without a head; use the objective whisper")
    known = sorted(language for language in languages if language)
    if len(known) < 2 or None in languages:
        raise ConfigError(
            "--hyper: the data speak one language, or do not say which; give data sets with a "
            "utt2lang, of two languages at least"
        )
    seed = info.training["seed"]
    target = HyperTarget(model, config, info, known, args.language, args.hyper, seed)
    count = sum(parameter.numel() for _, parameter in target.named_parameters())
    adapter = target.adapters[known[0]]
    print(
        f"{len(known)} adapters of {adapter.parameter_count:,} parameters, made by a network of "
        f"{count:,}"
    )
    key = {"adapter": adapter.config.to_dict(), "base": model.backbone.fingerprint}
    return target, {**key, "hyper": args.hyper, "languages": known}
