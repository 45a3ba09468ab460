"""Adapters on disk: ``speechadapt.json``, ``adapter.safetensors`` and a card. Never a pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from speechadapt.adapters.adapter import HEAD, Adapter, AdapterInfo
from speechadapt.adapters.registry import config_from_dict, family_of
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.files import replacing, write_json
from speechadapt.heads.head import Head
from speechadapt.heads.registry import head_config
from speechadapt.lowbit import BITS, pack, unpack

SCHEMA = 1
CONFIG_FILE = "speechadapt.json"
TENSOR_FILE = "adapter.safetensors"
CARD_FILE = "README.md"


def save_adapter(
    adapter: Adapter,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    bits: int | None = None,
) -> None:
    """Write an adapter's folder, whole or not at all; an older one of the same path is replaced.

    The bytes depend on the adapter alone, so equal adapters give equal files.

    Args:
        adapter: What to write.
        folder: Where to.
        dtype: How tensors are stored; float16 halves the file.
        bits: 8 or 1: matrices of the adapter (not of its head) are stored with so many bits a
            weight (:mod:`speechadapt.lowbit`).
    """
    tensors: dict[str, Tensor] = dict(adapter.named_tensors())
    description = description_of(adapter)
    if bits is not None:
        # A head is small, and what it computes with while it is trained is not rounded.
        head = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{HEAD}/")}
        tensors = {**pack({k: t for k, t in tensors.items() if k not in head}, bits), **head}
        description = {**description, "bits": bits}
    with replacing(Path(folder)) as temporary:
        temporary.mkdir()
        write_tensors(temporary / TENSOR_FILE, tensors, dtype)
        write_json(temporary / CONFIG_FILE, description)
        (temporary / CARD_FILE).write_text(card(adapter), encoding="utf-8")


def description_of(adapter: Adapter) -> dict[str, Any]:
    """An adapter without its tensors, as JSON has it."""
    return {
        "schema": SCHEMA,
        "name": adapter.name,
        "config": adapter.config.to_dict(),
        **({"head": adapter.head.to_dict()} if adapter.head else {}),
        "info": asdict(adapter.info),
        "shapes": {key: list(tensor.shape) for key, tensor in adapter.named_tensors()},
    }


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Write a safetensors file."""
    stored = {
        key: t.detach().to("cpu", dtype if t.is_floating_point() else t.dtype).contiguous()
        for key, t in tensors.items()
    }
    # save_file would make the file readable by its owner alone, whatever the umask says.
    path.write_bytes(safetensors.torch.save(stored))


def load_adapter(folder: str | Path, backbone: Backbone) -> Adapter:
    """Read an adapter and check that it fits ``backbone``.

    Raises:
        AdapterError: A file is missing or damaged, the schema is unknown, a tensor is missing, left
            over, not finite or of the wrong shape, or the adapter was made for another base.
    """
    folder = Path(folder)
    description = read_description(folder)
    name = description["name"]
    try:
        config = config_from_dict(description["config"])
        head = _blank_head(description, backbone)
        sites = backbone.sites.values()
        wanted = Adapter.blank(name, config, family_of(config), sites, AdapterInfo(), head)
    except ConfigError as error:
        raise AdapterError(f"{folder / CONFIG_FILE}: {error}") from error
    info = _read_info(folder, description["info"])
    if info.fingerprint != backbone.fingerprint:
        raise AdapterError(
            f"{folder}: made for the base {info.base!r} with fingerprint {info.fingerprint[:12]}, "
            f"but {backbone.name!r} has {backbone.fingerprint[:12]}; load the base it was made for"
        )
    expected = dict(wanted.named_tensors())
    integers = {key for key, tensor in expected.items() if not tensor.is_floating_point()}
    tensors = read_tensors(folder / TENSOR_FILE, description.get("bits"), integers)
    if bits := description.get("bits"):
        try:
            tensors = unpack(tensors, {key: t.shape for key, t in expected.items()}, bits)
        except AdapterError as error:
            raise AdapterError(f"{folder / TENSOR_FILE}: {error}") from None
    if missing := sorted(set(expected) - set(tensors)):
        raise AdapterError(f"{folder / TENSOR_FILE}: {len(missing)} missing, first {missing[0]}")
    if extra := sorted(set(tensors) - set(expected)):
        raise AdapterError(f"{folder / TENSOR_FILE}: {len(extra)} left over, first {extra[0]}")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise AdapterError(
                f"{folder / TENSOR_FILE}: {key} has shape {list(tensor.shape)}, "
                f"the config asks for {list(expected[key].shape)}"
            )
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise AdapterError(
                f"{folder / TENSOR_FILE}: {key} is {tensor.dtype}, expected "
                f"{'uint8' if key in integers else 'floats'}"
            )
    by_site: dict[str, dict[str, Tensor]] = {}
    for key in expected:
        site, tensor_name = key.split("/")
        by_site.setdefault(site, {})[tensor_name] = tensors[key]
    head = head and type(head)(head.config, by_site.pop(HEAD))
    for site, values in by_site.items():
        if fault := wanted.family.fault(wanted.config, values):
            raise AdapterError(f"{folder / TENSOR_FILE}: {site}: {fault}")
    return Adapter(name, wanted.config, wanted.family, by_site, info, head)


def _blank_head(description: Mapping[str, Any], backbone: Backbone) -> Head | None:
    if "head" not in description:
        return None
    kind, config = head_config(description["head"])
    if config.layers not in (0, backbone.depth + 1):
        raise ConfigError(
            f"head: layers is {config.layers!r}, expected 0 or {backbone.depth + 1} of this base"
        )
    with torch.device("meta"):
        return kind.fresh(config, backbone.width, torch.Generator("cpu"))


def card(adapter: Adapter) -> str:
    """The adapter's README: what it is for, made from what, measured how."""
    info = adapter.info
    sizes = [t.numel() * (2 if t.is_floating_point() else 1) for _, t in adapter.named_tensors()]
    lines = [
        f"# Adapter `{adapter.name}`",
        "",
        f"{adapter.config.method} adapter ({info.kind}) for the frozen base `{info.base}`"
        + (f", language `{info.language}`." if info.language else "."),
        "",
        f"- parameters: {adapter.parameter_count:,} ({sum(sizes) / 1e6:.1f} MB in float16)",
        f"- trailing silence it needs: {info.trailing_silence} s",
        f"- base fingerprint: `{info.fingerprint}`",
        f"- licence of the training data: {info.licence or 'not recorded'}",
    ]
    for title, values in (("Training", info.training), ("Results", info.results)):
        if values:
            lines += ["", f"## {title}", "", *_bullets(values)]
    return "\n".join(lines) + "\n"


def _bullets(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}- {key}:"
            yield from _bullets(value, indent + "  ")
        else:
            yield f"{indent}- {key}: {value}"


def read_description(folder: Path) -> dict[str, Any]:
    """What ``speechadapt.json`` of an adapter's folder says.

    Raises:
        AdapterError: It is missing, damaged, or of an unknown schema.
    """
    path = folder / CONFIG_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: no {CONFIG_FILE}, so this is no adapter folder; pass the folder that "
            "`speechadapt train --out` wrote"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AdapterError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(description, dict):
        raise AdapterError(f"{path}: expected a JSON object")
    if description.get("schema") != SCHEMA:
        raise AdapterError(
            f"{path}: schema {description.get('schema')!r} is unknown, this version reads {SCHEMA}"
        )
    if description.get("bits") not in (None, *BITS):
        known = " and ".join(map(str, BITS))
        raise AdapterError(f"{path}: bits is {description['bits']!r}, this version reads {known}")
    for key, kind in (("name", str), ("config", dict), ("info", dict), ("head", dict)):
        if key == "head" and key not in description:
            continue
        if not isinstance(description.get(key), kind):
            raise AdapterError(f"{path}: {key!r} is missing or no {kind.__name__}")
    return description


def _read_info(folder: Path, values: dict[str, Any]) -> AdapterInfo:
    if unknown := sorted(set(values) - {field.name for field in fields(AdapterInfo)}):
        raise AdapterError(f"{folder / CONFIG_FILE}: info has unknown {', '.join(unknown)}")
    info = AdapterInfo(**values)
    seconds = info.trailing_silence
    if (
        not isinstance(seconds, (int, float))
        or not math.isfinite(seconds)
        or not 0 <= seconds <= 30
    ):
        raise AdapterError(
            f"{folder / CONFIG_FILE}: trailing_silence is {seconds!r}, expected 0 … 30 seconds"
        )
    return info


def read_tensors(
    path: Path, bits: int | None = None, integers: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read a safetensors file whose tensors are finite floats, or codes of so many bits.

    Args:
        path: Of the file.
        bits: 8 or 1 where codes are expected.
        integers: Keys of tensors that hold bytes.

    Raises:
        AdapterError: It is missing, cut, no safetensors file, or holds something else.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: missing (pickled weights are never read)")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(f"{path}: not a whole safetensors file ({error})") from error
    for key, tensor in tensors.items():
        if bits and tensor.dtype in (torch.int8, torch.uint8):
            continue
        if key in integers and tensor.dtype == torch.uint8:
            continue
        if not tensor.is_floating_point():
            raise AdapterError(f"{path}: {key} is {tensor.dtype}, expected floats")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{path}: {key} holds NaN or infinity")
    return tensors
