"""What the importers of other libraries' adapters share, and which of them reads what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError

CONFIG_FILE = "adapter_config.json"  # of PEFT and of AdapterHub


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of another library.

    Raises:
        AdapterError: It is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing, so this is no adapter of another library") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AdapterError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: expected a JSON object")
    return values


def info_for(backbone: Backbone) -> AdapterInfo:
    """What is known of an adapter that is said to fit ``backbone``, and of nothing more."""
    return AdapterInfo(
        trailing_silence=backbone.frozen_trailing_silence,
        base=backbone.name,
        fingerprint=backbone.fingerprint,
    )


def fill(adapter: Adapter, found: Mapping[str, Mapping[str, Tensor]]) -> Adapter:
    """Put imported tensors into a fresh adapter, in place.

    Narrow ones are padded with zeros; sites without any stay fresh, so they change nothing.

    Args:
        adapter: As wide as the widest.
        found: ``{site: {tensor name: tensor}}``.
    """
    with torch.no_grad():
        for site, tensors in found.items():
            for key, tensor in tensors.items():
                target = adapter.tensors[site][key].zero_()
                target[tuple(slice(length) for length in tensor.shape)].copy_(tensor)
    return adapter
