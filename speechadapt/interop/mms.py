"""Language adapters of MMS checkpoints, ``adapter.<language>.safetensors``, both ways."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.mms import LAYERS, MmsConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError, CheckpointError, ConfigError
from speechadapt.files import replacing, write_json
from speechadapt.heads.ctc import CtcHead, read_vocabulary
from speechadapt.interop.foreign import fill, info_for
from speechadapt.store import CARD_FILE, card, read_tensors, write_tensors

_FILE = re.compile(r"adapter\.(.+)\.safetensors")
_HEAD = {"lm_head.weight": "proj.weight", "lm_head.bias": "proj.bias"}


def is_mms(path: Path) -> bool:
    """Whether a path is called as such a file is."""
    return bool(_FILE.fullmatch(path.name))


def import_mms(path: Path, backbone: Backbone, name: str | None = None) -> Adapter:
    """Read a language's adapter and its output layer, which becomes the adapter's CTC head.

    Args:
        path: ``adapter.<language>.safetensors``, beside it ``vocab.json`` and, if there is one,
            ``tokenizer_config.json``.
        backbone: A model with ``adapter_attn_dim``, such as facebook/mms-1b-all.
        name: How routes call it; None = the language's code.

    Raises:
        AdapterError: The base has no place for it; the file is damaged; a tensor is missing, left
            over, or of the wrong shape; the vocabulary does not fit.
    """
    matched = _FILE.fullmatch(path.name)
    assert matched is not None  # is_mms() saw to it
    language = matched.group(1)
    places = _places(backbone)
    if not places:
        raise AdapterError(
            f"{path}: {backbone.name} has no language adapters in its layers; give the base it "
            "belongs to, such as facebook/mms-1b-all"
        )
    try:
        vocabulary = read_vocabulary(path.parent, language)
    except CheckpointError as error:
        raise AdapterError(f"{path}: {error}") from None
    tensors = read_tensors(path)
    info = info_for(backbone)
    info.language = language
    config, sites = MmsConfig(), backbone.sites.values()
    adapter = Adapter.fresh(name or language, config, family_of(config), sites, info)
    shapes = {key: list(adapter.tensors[site][ours].shape) for key, (site, ours) in places.items()}
    outputs = len(vocabulary.tokens)
    shapes |= {"lm_head.weight": [outputs, backbone.width], "lm_head.bias": [outputs]}
    for key in sorted(set(shapes) | set(tensors)):
        has = list(tensors[key].shape) if key in tensors else "not there"
        wants = shapes.get(key, "nothing of that name")
        if has != wants:
            raise AdapterError(f"{path}: {key} is {has}, and {backbone.name} has {wants}")
    adapter.head = CtcHead(vocabulary, {ours: tensors[key].float() for key, ours in _HEAD.items()})
    found: dict[str, dict[str, Tensor]] = {}
    for key, (site, ours) in places.items():
        found.setdefault(site, {})[ours] = tensors[key]
    return fill(adapter, found)


def export_mms(adapter: Adapter, backbone: Backbone, folder: Path) -> None:
    """Write ``adapter.<name>.safetensors`` and its vocabulary, as transformers' ``load_adapter``
    and its CTC tokenizer read them from a model's folder.

    Raises:
        ConfigError: The adapter has no CTC head.
    """
    head = adapter.head
    if not isinstance(head, CtcHead):
        raise ConfigError(f"adapter {adapter.name!r} has no CTC head, which MMS adapters have")
    tensors: dict[str, Tensor] = {
        key: adapter.tensors[site][ours] for key, (site, ours) in _places(backbone).items()
    }
    tensors |= {key: head.tensors[ours] for key, ours in _HEAD.items()}
    vocabulary = {token: index for index, token in enumerate(head.config.tokens)}
    with replacing(folder, "adapter.*.safetensors", "vocab.json", CARD_FILE) as temporary:
        temporary.mkdir()
        write_tensors(temporary / f"adapter.{adapter.name}.safetensors", tensors, torch.float32)
        write_json(temporary / "vocab.json", {adapter.name: vocabulary})
        (temporary / CARD_FILE).write_text(card(adapter), encoding="utf-8")


def _places(backbone: Backbone) -> dict[str, tuple[str, str]]:
    """Site and tensor of ours by transformers' key."""
    paths = {id(module): path for path, module in backbone.model.named_modules()}
    prefix = backbone.model.base_model_prefix
    made = {}
    for site in backbone.sites.values():
        if site.point != "language":
            continue
        path = paths[id(site.leaf)]
        if not path.startswith(f"{prefix}."):  # the encoder alone, without an output layer
            path = f"{prefix}.{path}"
        for theirs, ours in LAYERS.items():
            for part in ("weight", "bias"):
                made[f"{path}.{theirs}.{part}"] = (site.name, f"{ours}.{part}")
    return made
