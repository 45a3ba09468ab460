"""Bottleneck adapters of AdapterHub's ``adapters`` library for Whisper: seq_bn, double_seq_bn,
par_bn and what lies between them.

Their options say where residuals are added; several spellings give one computation. Whisper
normalises before a sub-layer, so the library hands its adapters no normalisation of the base: with
the sub-layer's output h and the residual r, an adapter reads h, h + r or (parallel) r, and what it
makes is added to h + r. Options that add r twice, or never, have no equal of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError
from speechadapt.interop.foreign import CONFIG_FILE, fill, info_for, read_json
from speechadapt.store import read_tensors

TENSOR_FILE = "adapter.safetensors"
HEAD_FILE = "model_head.safetensors"
_PICKLES = {"pytorch_adapter.bin": TENSOR_FILE, "pytorch_model_head.bin": HEAD_FILE}

# The library's defaults of all that changes what is computed.
_DEFAULTS: dict[str, Any] = {
    "mh_adapter": False,
    "output_adapter": False,
    "cross_adapter": False,
    "non_linearity": None,
    "original_ln_before": False,
    "original_ln_after": True,
    "residual_before_ln": True,
    "ln_before": False,
    "is_parallel": False,
    "scaling": 1.0,
    "leave_out": (),
}
_UNSUPPORTED = {"ln_after": False, "use_gating": False, "phm_layer": False, "inv_adapter": None}
# Of training and of what is refused above; the width is that of the tensors.
_NO_MATTER = re.compile(
    "reduction_factor|init_weights.*|dropout|stochastic_depth|adapter_residual_before_ln|"
    "inv_adapter_reduction_factor|.*phm.*|hypercomplex_nonlinearity"
)
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu"}
_LEARNED = ("learned", "channel")  # a factor, or one for each channel

# Their module, the option that puts an adapter there, and our point.
_PLACES = {
    "attention_adapters": ("mh_adapter", "attn.out"),
    "cross_attention_adapters": ("cross_adapter", "cross.out"),
    "output_adapters": ("output_adapter", "ffn.out"),
}
_KEY = re.compile(r"(?:model\.)?(encoder|decoder)\.layers\.(\d+)\.(\w+)\.adapters\.[^.]+\.(.+)")


def import_adapterhub(folder: Path, backbone: Backbone, name: str | None = None) -> Adapter:
    """Read the bottleneck adapter of an AdapterHub folder.

    Widths that differ from layer to layer are evened out with zeros, learned scalings folded into
    the up projection. Dropout is left out: theirs is behind that projection.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter.safetensors``.
        backbone: The Whisper it was made for.
        name: How routes call it; None = as the library called it.

    Raises:
        AdapterError: A file is missing, pickled or damaged; a setting our bottleneck does not have;
            a tensor that is missing, left over, or of the wrong shape.
    """
    path = folder / CONFIG_FILE
    settings = read_json(path)
    options = _options(path, settings)
    points = _points(path, options)
    for pickle, better in _PICKLES.items():
        if (folder / pickle).is_file() and not (folder / better).is_file():
            raise AdapterError(
                f"{folder / pickle}: is pickled, which can run code when it is read; save the "
                "adapter again with save_adapter(..., use_safetensors=True, with_head=False)"
            )
    kind = getattr(backbone.model.config, "model_type", None)
    if settings.get("model_type") != kind or kind != "whisper":
        raise AdapterError(
            f"{path}: for a model of type {settings.get('model_type')!r}, and {backbone.name} is "
            f"{kind!r}; AdapterHub's adapters can be read for Whisper"
        )
    _check_head(folder / HEAD_FILE, backbone)
    found = _tensors(folder / TENSOR_FILE, points, options)
    encoder_only = settings.get("model_class") == "WhisperForAudioClassification"
    wanted = _sites(backbone, points, options, encoder_only)
    for sites, what in ((wanted - set(found), "has none"), (set(found) - wanted, "has one")):
        if sites:
            raise AdapterError(
                f"{folder / TENSOR_FILE}: {what} at {min(sites)}, unlike what {CONFIG_FILE} says "
                f"for {backbone.name}"
            )
    learned = options["scaling"] in _LEARNED
    config = BottleneckConfig(
        points=tuple(points.values()),
        stacks=tuple(dict.fromkeys(backbone.sites[site].stack for site in sorted(found))),
        bottleneck=_width(folder / TENSOR_FILE, found, backbone, options["ln_before"]),
        activation=_ACTIVATIONS[options["non_linearity"].lower()],
        placement="parallel_residual" if options["is_parallel"] else "sequential",
        layer_norm=options["ln_before"],
        scale=1.0 if learned else options["scaling"],
    )
    title = name or str(settings.get("name") or folder.resolve().name)
    adapter = Adapter.fresh(
        title, config, family_of(config), backbone.sites.values(), info_for(backbone)
    )
    return fill(adapter, found)


def _options(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the computation, defaults filled in."""
    given = settings.get("config")
    if not isinstance(given, dict) or not str(settings.get("version")).startswith("adapters."):
        raise AdapterError(f"{path}: not written by AdapterHub's `adapters` library, 1.0 or later")
    if given.get("architecture"):
        raise AdapterError(
            f"{path}: architecture is {given['architecture']!r}; of AdapterHub's only bottleneck "
            "adapters can be read"
        )
    options = {**_DEFAULTS, **_UNSUPPORTED, **given}
    for key, value in options.items():
        known = key in _DEFAULTS or key in _UNSUPPORTED or _NO_MATTER.fullmatch(key)
        if not known or value != _UNSUPPORTED.get(key, value):
            raise _beyond(path, key, value)
    if str(options["non_linearity"]).lower() not in _ACTIVATIONS:
        raise _beyond(path, "non_linearity", options["non_linearity"])
    if not isinstance(options["scaling"], float) and options["scaling"] not in _LEARNED:
        raise _beyond(path, "scaling", options["scaling"])
    return options


def _beyond(path: Path, key: str, value: Any, why: str = "") -> AdapterError:
    return AdapterError(
        f"{path}: {key} is {value!r}{why}, which our bottleneck adapters do not have; use it with "
        "AdapterHub"
    )


def _points(path: Path, options: Mapping[str, Any]) -> dict[str, str]:
    """Our point of each of their modules that has an adapter."""
    used = {module: point for module, (key, point) in _PLACES.items() if options[key]}
    if not used:
        raise AdapterError(f"{path}: puts an adapter nowhere")
    reads_state = bool(options["original_ln_before"]) and not options["is_parallel"]
    after, before = options["original_ln_after"], options["residual_before_ln"]
    if before not in (True, False):
        raise _beyond(path, "residual_before_ln", before)
    # How often the residual is part of what the adapter leaves.
    times = int(bool(after)) + int(reads_state and not before)
    if times != 1:
        why = f" and the residual then added {times} times"
        raise _beyond(path, "original_ln_after", after, why)
    if not reads_state:
        return used
    if set(used) != {"output_adapters"}:
        raise _beyond(path, "original_ln_before", True, " with an adapter after attention")
    return {"output_adapters": "out"}


def _sites(
    backbone: Backbone, points: Mapping[str, str], options: Mapping[str, Any], encoder_only: bool
) -> set[str]:
    """Where the settings say that there is an adapter."""
    layers = 1 + max(site.layer or 0 for site in backbone.sites.values() if site.stack == "encoder")
    left_out = set(options["leave_out"] or ())

    def chosen(stack: str, layer: int | None) -> bool:
        if layer is None or (encoder_only and stack == "decoder"):
            return False
        return (layer if stack == "encoder" else layers + layer) not in left_out

    return {
        site.name
        for site in backbone.sites.values()
        if site.point in points.values() and chosen(site.stack, site.layer)
    }


def _tensors(
    path: Path, points: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, dict[str, Tensor]]:
    """Our tensors by site, learned scalings folded in."""
    linear = "adapter_down.1" if options["ln_before"] else "adapter_down.0"
    names = {linear: "down", "adapter_up": "up"}
    if options["ln_before"]:
        # They have it under two names, of which a file may hold either or both.
        names |= {"adapter_down.0": "norm", "adapter_norm_before": "norm"}
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_tensors(path).items():
        matched = _KEY.fullmatch(key)
        stack, layer, module, rest = matched.groups() if matched else ("", "", "", "")
        layer_name, _, part = rest.rpartition(".")
        ours = f"{names.get(layer_name)}.{part}" if layer_name else rest
        known = layer_name in names or (rest == "scaling" and options["scaling"] in _LEARNED)
        if module not in points or not known:
            raise AdapterError(f"{path}: {key} is no tensor of such an adapter, and would be lost")
        site = found.setdefault(f"{stack}.{layer}.{points[module]}", {})
        if ours in site and not torch.equal(site[ours], tensor):
            raise AdapterError(f"{path}: {key} and its other name hold different values")
        site[ours] = tensor
    if not found:
        raise AdapterError(f"{path}: holds no tensors")
    for tensors in found.values():
        scaling = tensors.pop("scaling", None)
        if scaling is not None and {"up.weight", "up.bias"} <= set(tensors):
            tensors["up.weight"] = tensors["up.weight"] * scaling[:, None]
            tensors["up.bias"] = tensors["up.bias"] * scaling
    return found


def _width(
    path: Path, found: Mapping[str, Mapping[str, Tensor]], backbone: Backbone, layer_norm: bool
) -> int:
    """The widest of them.

    Raises:
        AdapterError: One lacks a tensor, or has one of the wrong shape.
    """
    widest = 0
    for site, tensors in found.items():
        dim, width = backbone.sites[site].dim, len(tensors.get("down.weight", ()))
        widest = max(widest, width)
        wanted = {
            "down.weight": [width, dim],
            "down.bias": [width],
            "up.weight": [dim, width],
            "up.bias": [dim],
            **({"norm.weight": [dim], "norm.bias": [dim]} if layer_norm else {}),
        }
        shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
        if shapes != wanted:
            raise AdapterError(f"{path}: at {site} it has {shapes}, expected {wanted}")
    return widest


def _check_head(path: Path, backbone: Backbone) -> None:
    """The library saves the output projection too, which belongs to the base."""
    if not path.is_file():
        return
    base = backbone.model.state_dict()
    for key, tensor in read_tensors(path).items():
        own = base.get(key)
        if own is None or not torch.equal(own.float().cpu(), tensor.float()):
            raise AdapterError(
                f"{path}: {key} is not that of {backbone.name}, and a trained output projection "
                "cannot be imported; if it was not trained, delete the file"
            )
