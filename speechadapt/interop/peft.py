"""LoRA in PEFT's format, both ways: what PEFT, transformers and vLLM load."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.files import replacing, write_json
from speechadapt.interop.foreign import CONFIG_FILE, fill, info_for, read_json
from speechadapt.store import card, description_of, read_tensors, write_tensors

TENSOR_FILE = "adapter_model.safetensors"
SIDECAR = "speechadapt.json"
_PREFIX = "base_model.model."

# Settings that change what PEFT computes and that our LoRA cannot express.
_UNSUPPORTED = {
    "use_dora": False,
    "use_qalora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "bias": "none",
    "modules_to_save": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
}


def export_peft(adapter: Adapter, backbone: Backbone, folder: Path) -> None:
    """Write a LoRA as a PEFT folder, whole or not at all, our own description beside it.

    A PiSSA start becomes part of a LoRA of twice the rank, on the unchanged base.

    Raises:
        ConfigError: The adapter is no LoRA.
    """
    config = adapter.config
    if not isinstance(config, LoraConfig):
        raise ConfigError(
            f"adapter {adapter.name!r} is a {config.method} adapter; PEFT has LoRA alone of ours"
        )
    paths = {id(module): path for path, module in backbone.model.named_modules()}
    tensors, targets = {}, []
    for site, values in adapter.tensors.items():
        path = paths[id(backbone.sites[site].leaf)]
        down: Tensor = values["down.weight"]
        up: Tensor = values["up.weight"]
        if config.start == "pissa":
            down = torch.cat((down, values["start.down"]))
            up = torch.cat((up, -values["start.up"]), 1)
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = down
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = up
        targets.append(path)
    rank = len(down)
    described = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.info.base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": config.scale * (math.sqrt(rank) if config.rank_stabilized else rank),
        "use_rslora": config.rank_stabilized,
        "lora_dropout": config.dropout,
        "bias": "none",
        "target_modules": targets,
    }
    with replacing(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / CONFIG_FILE, described)
        write_tensors(temporary / TENSOR_FILE, tensors)
        write_json(temporary / SIDECAR, description_of(adapter))
        (temporary / "README.md").write_text(card(adapter), encoding="utf-8")


def import_peft(
    folder: Path, backbone: Backbone, name: str | None = None, info: AdapterInfo | None = None
) -> Adapter:
    """Read the LoRA of a PEFT folder.

    Ranks and alphas that differ from layer to layer are evened out: ranks padded with zeros, alphas
    folded into the tensors. Layers of the same kind that it leaves out get a LoRA without effect.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        backbone: The base it was made for.
        name: How routes call it; None = the name in our sidecar, else the folder's.
        info: What is known of it; None = what our sidecar says, else that it fits this base.

    Raises:
        AdapterError: A file is missing, pickled or damaged; a setting our LoRA does not have; a
            tensor without its partner, or for a layer that the base does not have.
    """
    settings = read_json(folder / CONFIG_FILE)
    _check(folder, settings)
    sidecar = read_json(folder / SIDECAR) if (folder / SIDECAR).is_file() else {}
    if info is None:
        info = _info(sidecar, backbone)
    pairs = _pairs(folder, backbone, settings)
    rank = max(len(down) for down, _ in pairs.values())
    sites = [backbone.sites[site] for site in pairs]
    config = LoraConfig(
        points=tuple(dict.fromkeys(site.point for site in sites)),
        stacks=tuple(dict.fromkeys(site.stack for site in sites)),
        rank=rank,
        alpha=float(rank),
        dropout=float(settings.get("lora_dropout") or 0.0),
    )
    title = name or str(sidecar.get("name") or folder.resolve().name)
    adapter = Adapter.fresh(title, config, family_of(config), backbone.sites.values(), info)
    found = {site: {"down.weight": down, "up.weight": up} for site, (down, up) in pairs.items()}
    return fill(adapter, found)


def _check(folder: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{folder / CONFIG_FILE}: peft_type is {kind!r}; only LORA can be read")
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start not in ("gaussian", "eva", "orthogonal"):
        raise AdapterError(
            f"{folder / CONFIG_FILE}: init_lora_weights is {start!r}, which changes the base; save "
            "it from PEFT with path_initial_model_for_weight_conversion"
        )
    for key, plain in _UNSUPPORTED.items():
        if settings.get(key, plain) not in (plain, None, False, [], {}):
            raise AdapterError(
                f"{folder / CONFIG_FILE}: {key} is {settings[key]!r}, which our LoRA cannot "
                "express; merge the adapter with PEFT instead"
            )


def _pairs(
    folder: Path, backbone: Backbone, settings: Mapping[str, Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up projection of each site, the scale folded into the latter."""
    path = folder / TENSOR_FILE
    sites = backbone.module_sites()
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_tensors(path).items():
        module, _, part = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        if part not in ("lora_A", "lora_B") or not key.startswith(_PREFIX):
            raise AdapterError(f"{path}: {key} is no LoRA tensor, so it would be lost")
        if module not in sites:
            raise AdapterError(f"{path}: {module} is no linear layer of {backbone.name}")
        found.setdefault(module, {})[part] = tensor
    if not found:
        raise AdapterError(f"{path}: holds no tensors")
    pairs = {}
    for module, values in found.items():
        site = sites[module]
        if set(values) != {"lora_A", "lora_B"}:
            raise AdapterError(f"{path}: {module} has {' '.join(values)} without its partner")
        down, up = values["lora_A"], values["lora_B"]
        if down.shape != (len(down), site.input_dim) or up.shape != (site.dim, len(down)):
            raise AdapterError(
                f"{path}: {module} has shapes {list(down.shape)} and {list(up.shape)}, expected "
                f"[rank, {site.input_dim}] and [{site.dim}, rank]"
            )
        pairs[site.name] = (down, up * _scale(settings, module, len(down)))
    return pairs


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(settings.get("lora_alpha", 8))
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(value)
            break  # PEFT takes the first that fits
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _info(sidecar: Mapping[str, Any], backbone: Backbone) -> AdapterInfo:
    known = dict(sidecar.get("info") or {})
    if not known:
        return info_for(backbone)
    try:
        info = AdapterInfo(**known)
    except TypeError as error:
        raise AdapterError(f"{SIDECAR}: info cannot be read ({error})") from None
    if info.fingerprint != backbone.fingerprint:
        raise AdapterError(
            f"{SIDECAR}: made for the base {info.base!r} with fingerprint {info.fingerprint[:12]}, "
            f"but {backbone.name!r} has {backbone.fingerprint[:12]}; load the base it was made for"
        )
    return info
