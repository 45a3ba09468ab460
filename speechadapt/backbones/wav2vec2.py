"""The wav2vec2 family: Wav2Vec2, XLS-R, MMS, HuBERT, WavLM, Data2VecAudio, base and large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCTC, PreTrainedModel

from speechadapt.audio import SAMPLE_RATE
from speechadapt.backbones.attention import use_attention
from speechadapt.backbones.base import Attention, Backbone, Encoded, Site, linear_at
from speechadapt.backbones.layers import Tap, run_layers
from speechadapt.backbones.tokens import read_json
from speechadapt.backbones.weights import fingerprint, load_strictly
from speechadapt.call import current
from speechadapt.errors import CheckpointError
from speechadapt.features import Features, Waves
from speechadapt.files import write_json
from speechadapt.heads.ctc import CtcHead, read_vocabulary, write_vocabulary
from speechadapt.heads.head import Head

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")

_EXTRACTOR = "preprocessor_config.json"

# Parameters that pretraining alone uses; files may or may not have them.
_PRETRAINING = ("quantizer", "project_q", "project_hid", "masked_spec_embed")


class Wav2Vec2Backbone(Backbone):
    """A frozen encoder of the wav2vec2 family and the places where adapters attach.

    Args:
        model: A transformers model with or without a CTC head.
        name: As the user gave it.
        normalize: Whether waves are normalised one by one, as the checkpoint's extractor says.
        fingerprint: Of the encoder's weights; empty = computed here.

    Raises:
        CheckpointError: A variant that shortens its output (``add_adapter``).
    """

    best_adapter = "conformer"
    fixed = _PRETRAINING

    def __init__(
        self, model: PreTrainedModel, name: str, normalize: bool = True, fingerprint: str = ""
    ):
        encoder: Any = model.base_model
        if getattr(encoder.config, "add_adapter", False):
            raise CheckpointError(
                f"{name}: its convolutional adapter (add_adapter) shortens the output, which is "
                "not supported; give a checkpoint without it"
            )
        # Where adapters of the encoder's input attach: after the projection of the front end.
        self._embed = nn.Identity()
        super().__init__(
            model,
            name,
            fingerprint or _fingerprint(model),
            site_table(encoder, self._embed),
        )
        if any(site.attention for site in self.sites.values()):
            use_attention(self.model)
        self._encoder = encoder
        self._stable = bool(getattr(encoder.config, "do_stable_layer_norm", False))
        self._tap = Tap(list(encoder.encoder.layers))
        config = encoder.config
        self._convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        shortest = 1
        for kernel, stride in reversed(self._convolutions):
            shortest = (shortest - 1) * stride + kernel
        self._normalize, self._shortest = normalize, shortest
        self.position_seconds = math.prod(config.conv_stride) / SAMPLE_RATE
        # Data2VecAudio has several convolutions in a row there: what the first writes into padding
        # the next would read. The others have one, and read zeros.
        for layer in list(getattr(encoder.encoder.pos_conv_embed, "layers", ()))[1:]:
            layer.register_forward_pre_hook(_silence_padding)

    def features(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Features:
        """Waves ``[batch, samples]``; see :class:`speechadapt.features.Waves`."""
        make = Waves(self._normalize, self._shortest, self.device)
        return make(waves, trailing_silence or 0.0)

    def save(self, model: nn.Module, folder: Path, head: Head | None = None) -> None:
        """With the settings of its waves and, where it has one, its vocabulary."""
        head = head or self.head
        super().save(model, folder, head)
        write_json(folder / _EXTRACTOR, {"do_normalize": self._normalize})
        if isinstance(head, CtcHead):
            write_vocabulary(folder, head.config)

    def positions(self, lengths: Tensor) -> Tensor:
        """What the front end's convolutions leave of so many samples."""
        for kernel, stride in self._convolutions:
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def encode(self, features: Features, layers: bool = False) -> Encoded:
        """Front end and encoder over waves ``[batch, samples]``.

        transformers leaves out masks for checkpoints whose front end normalises over time, and
        padding then changes every state of an utterance; here it changes none.
        """
        if features.layers:
            return self._behind(features, layers)
        if features.layers is None:
            positions, hidden = self.positions(features.lengths), self._project(features)
        else:
            positions, hidden = features.lengths, features.values.mT
        mask = None
        if self.key_lengths(features) is not None:
            mask = torch.arange(hidden.shape[1], device=hidden.device) < positions[:, None]
            # transformers zeroes padding in place; not in a tensor that adapters still need.
            hidden = hidden.masked_fill(~mask[..., None], 0.0)
        if not layers:
            states = self._encoder.encoder(hidden, attention_mask=mask).last_hidden_state
            return Encoded(states, positions)
        with self._tap.collecting() as read:
            states = self._encoder.encoder(hidden, attention_mask=mask).last_hidden_state
        return Encoded(states, positions, (*read, states))

    def ahead(self, features: Features, layers: int) -> Features:
        """The front end, and any number of layers, but none of WavLM: there the first layer makes
        the position bias of all."""
        with torch.no_grad():
            if layers and self.model.config.model_type != "wavlm":
                encoded = self.encode(features, layers=True)
                assert encoded.layers is not None
                # A stable model's last layer gives what its last norm reads: nothing kept has that.
                layers = min(layers, self.depth - self._stable)
                return Features(encoded.layers[layers].mT, encoded.lengths, layers)
            return Features(self._project(features).mT, self.positions(features.lengths), 0)

    def _behind(self, features: Features, layers: bool) -> Encoded:
        """The layers behind those that :meth:`ahead` ran."""
        read: list[Tensor] = []
        encoder = self._encoder.encoder
        states = run_layers(
            encoder.layers[features.layers :], self.resume(features), read if layers else None
        )
        if self._stable:
            states = encoder.layer_norm(states)
        return Encoded(states, features.lengths, (*read, states) if layers else None)

    def _project(self, features: Features) -> Tensor:
        """What the first layer reads, ``[batch, positions, dim]``."""
        frames = self._front_end(features).transpose(1, 2)
        projected = self._encoder.feature_projection(frames)
        # Some models of the family return what they project beside the projection.
        hidden: Tensor = self._embed(projected[0] if isinstance(projected, tuple) else projected)
        return hidden

    def _front_end(self, features: Features) -> Tensor:
        """The convolutions, ``[batch, channels, positions]``."""
        extractor = self._encoder.feature_extractor
        values = features.values.to(self.dtype)
        first = extractor.conv_layers[0]
        over_time = isinstance(getattr(first, "layer_norm", None), nn.GroupNorm)
        if not over_time or self.key_lengths(features) is None:
            return extractor(values)
        kernel, stride = self._convolutions[0]
        hidden = first.conv(values[:, None])
        lengths = (features.lengths - kernel) // stride + 1
        hidden = first.activation(_norm_over_time(hidden, lengths, first.layer_norm))
        for layer in extractor.conv_layers[1:]:
            hidden = layer(hidden)
        return hidden


def _silence_padding(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Zero beyond each utterance of the current batch, ``[batch, channels, positions]``."""
    call = current()
    device = inputs[0].device
    lengths = None if call is None else call.lengths("encoder", device)
    if lengths is None:
        return None
    valid = torch.arange(inputs[0].shape[2], device=device) < lengths[:, None, None]
    return (inputs[0].masked_fill(~valid, 0.0),)


def load_wav2vec2(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Wav2Vec2Backbone:
    """The model of a folder that ``save_pretrained`` wrote, with its CTC head if it has one.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    architectures = read_json(folder / "config.json").get("architectures") or [""]
    with_head = str(architectures[0]).endswith("ForCTC")
    model = load_strictly(AutoModelForCTC if with_head else AutoModel, folder, _PRETRAINING)
    vocabulary = read_vocabulary(folder) if with_head else None
    extractor = folder / _EXTRACTOR
    normalize = True
    if extractor.is_file():
        normalize = bool(read_json(extractor).get("do_normalize", True))
    mark = _fingerprint(model)
    backbone = Wav2Vec2Backbone(model.to(dtype), name, normalize, mark)
    if vocabulary is not None:
        layer = linear_at(model, "lm_head")
        if layer.out_features != len(vocabulary.tokens):
            raise CheckpointError(
                f"{folder}: its CTC head has {layer.out_features} outputs and vocab.json "
                f"{len(vocabulary.tokens)} tokens; copy the model and its tokenizer again"
            )
        tensors = {"proj.weight": layer.weight, "proj.bias": layer.bias}
        backbone.head = CtcHead(vocabulary, tensors)
    return backbone


def _fingerprint(model: PreTrainedModel) -> str:
    base: Any = model.base_model
    return fingerprint(base)


def _norm_over_time(x: Tensor, lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm with a group for each channel, over the valid frames of each utterance alone.

    Args:
        x: ``[batch, channels, frames]``.
        lengths: Valid frames, ``[batch]``.
        norm: Its weights and epsilon.
    """
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None, None]
    count = lengths[:, None, None].to(x.dtype)
    mean = x.masked_fill(~valid, 0.0).sum(2, keepdim=True) / count
    centred = (x - mean).masked_fill(~valid, 0.0)
    var = centred.square().sum(2, keepdim=True) / count
    return torch.addcmul(
        norm.bias[:, None], centred * torch.rsqrt(var + norm.eps), norm.weight[:, None]
    )


def site_table(model: Any, embed: nn.Module) -> list[Site]:
    """Every site of an encoder whose layers read what ``embed`` gives."""
    encoder = model.encoder
    width = model.config.hidden_size
    stable = bool(getattr(model.config, "do_stable_layer_norm", False))
    # WavLM reads the weights of its projections instead of calling them: no hook can reach those.
    # What leaves its attention passes the layer's dropout, which does nothing in eval().
    called = model.config.model_type != "wavlm"
    sites = [Site("encoder.embed", embed, width, width)]
    if stable:
        sites.append(Site("encoder.final", encoder.layer_norm, width, width))
    for index, layer in enumerate(encoder.layers):
        at = f"encoder.{index}"
        sites.append(Site(f"{at}.attn.norm", layer.layer_norm, width, width))
        entry = layer.layer_norm if stable else None
        if called:
            projections = {
                part: linear_at(layer, f"attention.{part}_proj") for part in ("q", "k", "v", "out")
            }
            entry = entry or projections["q"]
            for part, leaf in projections.items():
                mine = entry if part == "out" else None
                name = f"{at}.attn.{part}"
                sites.append(Site(name, leaf, leaf.out_features, leaf.in_features, mine, stable))
            sites.append(_attention_site(f"{at}.attn.kv", layer.attention, entry, stable))
        else:
            name = f"{at}.attn.out"
            sites.append(Site(name, layer.dropout, width, width, entry, stable))
        sites.append(Site(f"{at}.ffn.norm", layer.final_layer_norm, width, width))
        first = linear_at(layer, "feed_forward.intermediate_dense")
        last = linear_at(layer, "feed_forward.output_dense")
        entry = layer.final_layer_norm if stable else first
        inner = first.out_features
        sites += [
            Site(f"{at}.ffn.in", first, inner, width),
            Site(f"{at}.ffn.out", last, width, inner, entry, stable),
        ]
        if (language := getattr(layer, "adapter_layer", None)) is not None:  # MMS
            sites.append(Site(f"{at}.language", language, width, width))
        sites.append(Site(f"{at}.out", layer, width, width, resumed=nn.Identity()))
    return sites


def _attention_site(name: str, attention: Any, entry: nn.Module, stable: bool) -> Site:
    """The keys and values of an attention, whose layer normalises before it if ``stable``."""
    key, value = linear_at(attention, "k_proj"), linear_at(attention, "v_proj")
    made = Attention(int(attention.num_heads), key, value, entry if stable else None)
    return Site(name, attention, key.out_features, key.in_features, attention=made)
