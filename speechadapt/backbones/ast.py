"""Audio Spectrogram Transformer (Gong et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ASTForAudioClassification, ASTModel, PreTrainedModel

from speechadapt.backbones.attention import use_attention
from speechadapt.backbones.base import (
    Attention,
    Backbone,
    Encoded,
    Site,
    linear_at,
    module_at,
)
from speechadapt.backbones.layers import Tap, run_layers
from speechadapt.backbones.tokens import read_json
from speechadapt.backbones.weights import fingerprint, load_strictly
from speechadapt.features import Features, FilterBank
from speechadapt.files import write_json
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.head import Head

MODEL_TYPES = ("audio-spectrogram-transformer",)

_EXTRACTOR = "preprocessor_config.json"

# leaf -> where releases of transformers have it inside a layer
_LEAVES = {
    "attn.q": ("attention.q_proj", "attention.attention.query"),
    "attn.k": ("attention.k_proj", "attention.attention.key"),
    "attn.v": ("attention.v_proj", "attention.attention.value"),
    "attn.out": ("attention.o_proj", "attention.output.dense"),
    "ffn.in": ("mlp.fc1", "intermediate.dense"),
    "ffn.out": ("mlp.fc2", "output.dense"),
}
_NORMS = {"attn": "layernorm_before", "ffn": "layernorm_after"}


class ASTBackbone(Backbone):
    """A frozen AST and the places where adapters attach.

    Its sequence is two summary tokens, then the patches of a spectrogram of fixed length.

    Args:
        model: A transformers model with or without a classifier.
        name: As the user gave it.
        mean: Of the filter bank energies AST was trained on; None = they are not normalised.
        std: Half of what they are divided by.
        fingerprint: Of the encoder's weights; empty = computed here.
    """

    best_adapter = "pfeiffer"

    def __init__(
        self,
        model: PreTrainedModel,
        name: str,
        mean: float | None = -4.2677393,
        std: float = 4.5689974,
        fingerprint: str = "",
    ):
        self._encoder: Any = model.base_model
        super().__init__(model, name, fingerprint or _fingerprint(model), site_table(self._encoder))
        use_attention(self.model)
        self._mean, self._std = mean, std
        self._bank: FilterBank | None = None
        self._tap = Tap(list(layers_of(self._encoder)))
        if isinstance(model, ASTForAudioClassification):
            self.head = _head(model)

    def module_sites(self) -> dict[str, Site]:
        """The paths of releases before the renaming of AST's modules too."""
        sites = super().module_sites()
        prefix = "audio_spectrogram_transformer." if self._encoder is not self.model else ""
        for site in list(sites.values()):
            for layers, path in (("layers", 0), ("encoder.layer", 1)):
                sites[f"{prefix}{layers}.{site.layer}.{_LEAVES[site.point][path]}"] = site
        return sites

    def features(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Features:
        """Filter banks ``[batch, bins, frames]``, padded or cut to AST's own length."""
        if self._bank is None or self._bank.window.device != self.device:
            config = self._encoder.config
            self._bank = FilterBank(
                config.num_mel_bins, config.max_length, self._mean, self._std, self.device
            )
        return self._bank(waves)

    def save(self, model: nn.Module, folder: Path, head: Head | None = None) -> None:
        """With the settings of its filter banks."""
        assert isinstance(model, PreTrainedModel)
        head = head or self.head
        if isinstance(head, ClassifierHead):
            kind = "multi" if head.config.multi_label else "single"
            model.config.problem_type = f"{kind}_label_classification"
        super().save(model, folder, head)
        normalize = self._mean is not None
        settings = {"do_normalize": normalize, "mean": self._mean or 0.0, "std": self._std}
        write_json(folder / _EXTRACTOR, settings)

    def positions(self, lengths: Tensor) -> Tensor:
        """All of them, for every utterance."""
        positions = self._encoder.embeddings.position_embeddings.shape[1]
        return torch.full_like(lengths, positions)

    def encode(self, features: Features, layers: bool = False) -> Encoded:
        """States of the summary tokens and patches, ``[batch, 2 + patches, dim]``."""
        if features.layers:
            return self._behind(features, layers)
        values = features.values.mT.to(self.dtype)
        lengths = self.positions(features.lengths)
        if not layers:
            return Encoded(self._encoder(values).last_hidden_state, lengths)
        with self._tap.collecting() as read:
            states = self._encoder(values).last_hidden_state
        return Encoded(states, lengths, (*read, states))

    def ahead(self, features: Features, layers: int) -> Features:
        """Any number of layers but the last, whose output only the last norm sees."""
        layers = min(layers, self.depth - 1)
        if not layers:
            return features
        with torch.no_grad():
            encoded = self.encode(features, layers=True)
        assert encoded.layers is not None
        return Features(encoded.layers[layers].mT, encoded.lengths, layers)

    def positions_in(self, seconds: float) -> float:
        """As many for any recording."""
        return float(self._encoder.embeddings.position_embeddings.shape[1])

    def _behind(self, features: Features, layers: bool) -> Encoded:
        """The layers behind those that :meth:`ahead` ran."""
        read: list[Tensor] = []
        states = run_layers(
            layers_of(self._encoder)[features.layers :],
            self.resume(features),
            read if layers else None,
        )
        states = self._encoder.layernorm(states)
        return Encoded(states, features.lengths, (*read, states) if layers else None)


def load_ast(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> ASTBackbone:
    """The model of a folder that ``save_pretrained`` wrote, with its classifier if it has one.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    architectures = read_json(folder / "config.json").get("architectures") or [""]
    with_head = architectures[0] == "ASTForAudioClassification"
    model = load_strictly(ASTForAudioClassification if with_head else ASTModel, folder)
    settings: dict[str, Any] = {}
    extractor = folder / _EXTRACTOR
    if extractor.is_file():
        values = read_json(extractor)
        settings = {key: float(values[key]) for key in ("mean", "std") if key in values}
        if not values.get("do_normalize", True):
            settings["mean"] = None
    mark = _fingerprint(model)
    return ASTBackbone(model.to(dtype), name, fingerprint=mark, **settings)


def _head(model: ASTForAudioClassification) -> ClassifierHead:
    """The checkpoint's classifier."""
    norm, last = model.classifier.layernorm, linear_at(model, "classifier.dense")
    labels = tuple(model.config.id2label[index] for index in range(last.out_features))
    multi_label = model.config.problem_type == "multi_label_classification"
    return ClassifierHead(
        ClassifierConfig(labels, multi_label, pooling="summary", epsilon=norm.eps),
        {
            "norm.weight": norm.weight,
            "norm.bias": norm.bias,
            "proj.weight": last.weight,
            "proj.bias": last.bias,
        },
    )


def _fingerprint(model: PreTrainedModel) -> str:
    base: Any = model.base_model
    return fingerprint(base)


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of an encoder."""
    layers = module_at(model, "layers", "encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    return layers


def site_table(model: Any) -> list[Site]:
    """Every site of an encoder."""
    width = model.config.hidden_size
    sites = [
        Site("encoder.embed", model.embeddings, width, width),
        Site("encoder.final", model.layernorm, width, width),
    ]
    for index, layer in enumerate(layers_of(model)):
        at = f"encoder.{index}"
        norms = {sublayer: module_at(layer, path) for sublayer, path in _NORMS.items()}
        sites += [Site(f"{at}.{part}.norm", norm, width, width) for part, norm in norms.items()]
        for point, paths in _LEAVES.items():
            leaf = linear_at(layer, *paths)
            sublayer, part = point.split(".")
            entry = norms[sublayer] if part == "out" else None
            sites.append(Site(f"{at}.{point}", leaf, leaf.out_features, leaf.in_features, entry))
        key, value = (linear_at(layer, *_LEAVES[point]) for point in ("attn.k", "attn.v"))
        attention = Attention(model.config.num_attention_heads, key, value, norms["attn"])
        module = module_at(layer, "attention.attention", "attention")
        sites.append(Site(f"{at}.attn.kv", module, width, width, attention=attention))
        sites.append(Site(f"{at}.out", layer, width, width, resumed=nn.Identity()))
    return sites
