"""Whisper: site table, short context, masks in mixed-length batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration

from speechadapt.backbones.attention import use_attention
from speechadapt.backbones.base import Attention, Backbone, Encoded, Site, linear_at, module_at
from speechadapt.backbones.checkpoints import WhisperCheckpoint, fingerprint
from speechadapt.backbones.layers import run_layers
from speechadapt.features import Features, LogMel
from speechadapt.heads.head import Head

POSITION_SECONDS = 0.02  # one encoder position

# sub-layer -> its normalisation, and the linear layers inside it; the last ends it.
_SUBLAYERS = {
    "attn": (
        "self_attn_layer_norm",
        {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "out": "self_attn.out_proj",
        },
    ),
    "cross": (
        "encoder_attn_layer_norm",
        {
            "q": "encoder_attn.q_proj",
            "k": "encoder_attn.k_proj",
            "v": "encoder_attn.v_proj",
            "out": "encoder_attn.out_proj",
        },
    ),
    "ffn": ("final_layer_norm", {"in": "fc1", "out": "fc2"}),
}
_STACKS = {"encoder": ("attn", "ffn"), "decoder": ("attn", "cross", "ffn")}


class WhisperBackbone(Backbone):
    """A frozen Whisper and the places where adapters attach.

    Args:
        checkpoint: What :func:`speechadapt.backbones.checkpoints.load_whisper` returns.
    """

    best_adapter = "convpass"
    # what the frozen decoder needs to stop by itself (docs/short_context.md)
    frozen_trailing_silence = 2.56
    fixed = ("encoder.embed_positions",)  # sinusoids
    model: WhisperForConditionalGeneration

    def __init__(self, checkpoint: WhisperCheckpoint):
        # Where adapters of the encoder's input attach: no module of Whisper's ends there.
        self._embed = nn.Identity()
        super().__init__(
            checkpoint.model,
            checkpoint.name,
            # Taken by the loader before any cast: bf16 rounds what the fingerprint is made from.
            checkpoint.fingerprint or fingerprint(checkpoint.model),
            site_table(checkpoint.model, self._embed),
        )
        use_attention(self.model)
        self.tokenizer = checkpoint.tokenizer
        self.generation = checkpoint.generation
        self._log_mel: LogMel | None = None

    def features(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Features:
        """Log-mel features of 16 kHz waves; see :class:`speechadapt.features.LogMel`."""
        if self._log_mel is None or self._log_mel.filters.device != self.device:
            self._log_mel = LogMel(self.model.config.num_mel_bins, self.device)
        return self._log_mel(waves, trailing_silence)

    def save(self, model: nn.Module, folder: Path, head: Head | None = None) -> None:
        """With the tokenizer and the generation settings."""
        super().save(model, folder, head)
        self.tokenizer.save_pretrained(folder)
        self.generation.save_pretrained(folder)

    def positions(self, lengths: Tensor) -> Tensor:
        """The second convolution halves the frames."""
        return lengths // 2

    def encode(self, features: Features, layers: bool = False) -> Encoded:
        """Run the encoder on as many positions as the features have.

        transformers' ``WhisperEncoder.forward`` insists on 30 s, so its modules are run here one by
        one; tests hold the two equal. Must run inside :func:`speechadapt.call.running` with the
        call's ``key_lengths`` set when utterances differ in length.

        Args:
            features: Log-mel ``[batch, mel_bins, frames]``.
            layers: Whether the states of all layers are wanted too.

        Returns:
            States ``[batch, frames / 2, dim]``.
        """
        read: list[Tensor] = []
        last = self._run(features, None, read if layers else None)
        states = self.model.model.encoder.layer_norm(last)
        lengths = self.positions(features.lengths) if features.layers is None else features.lengths
        return Encoded(states, lengths, (*read, states) if layers else None)

    def ahead(self, features: Features, layers: int) -> Features:
        """Any number of layers; without any, features are small and soon read."""
        if not layers:
            return features
        with torch.no_grad():
            states = self._run(features, layers)
        return Features(states.mT, self.positions(features.lengths), layers)

    def _run(self, features: Features, end: int | None, read: list[Tensor] | None = None) -> Tensor:
        """What layer ``end`` reads, None = the last norm; ``read`` gets what those before read."""
        encoder = self.model.model.encoder
        if features.layers is None:
            hidden = nn.functional.gelu(encoder.conv1(features.values.to(self.dtype)))
            hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
            hidden = self._embed(hidden + encoder.embed_positions.weight[: hidden.shape[1]])
        else:
            hidden = self.resume(features)
        return run_layers(encoder.layers[features.layers or 0 : end], hidden, read)

    def decoder_states(self, tokens: Tensor, encoded: Encoded) -> Tensor:
        """Teacher-forced decoder pass, without a cache.

        Args:
            tokens: Decoder input ``[batch, tokens]``, padded on the right.
            encoded: Encoder output of the same utterances.

        Returns:
            States before the output projection, ``[batch, tokens, dim]``.
        """
        decoder = self.model.model.decoder
        return decoder(
            input_ids=tokens, encoder_hidden_states=encoded.states, use_cache=False
        ).last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """Output projection: ``[..., dim]`` to ``[..., vocabulary]``."""
        return self.model.proj_out(states)


def site_table(model: nn.Module, embed: nn.Module) -> list[Site]:
    """Every site: of the layers by sub-layer, and before and after the encoder's layers."""
    encoder = model.get_submodule("model.encoder")
    final = encoder.get_submodule("layer_norm")
    assert isinstance(final, nn.LayerNorm)
    width = final.normalized_shape[0]
    sites = [
        Site("encoder.embed", embed, width, width),
        Site("encoder.final", final, width, width),
    ]
    for stack, sublayers in _STACKS.items():
        layers = model.get_submodule(f"model.{stack}.layers")
        assert isinstance(layers, nn.ModuleList)
        for index, layer in enumerate(layers):
            for sublayer in sublayers:
                norm_path, linears = _SUBLAYERS[sublayer]
                norm = layer.get_submodule(norm_path)
                sites.append(Site(f"{stack}.{index}.{sublayer}.norm", norm, width, width))
                for part, path in linears.items():
                    leaf = linear_at(layer, path)
                    entry = norm if part == "out" else None
                    name = f"{stack}.{index}.{sublayer}.{part}"
                    sites.append(Site(name, leaf, leaf.out_features, leaf.in_features, entry))
                if sublayer != "ffn":
                    name = f"{stack}.{index}.{sublayer}.kv"
                    sites.append(_attention_site(name, layer, linears, norm))
            end = nn.Identity() if stack == "encoder" else None
            sites.append(Site(f"{stack}.{index}.out", layer, width, width, resumed=end))
    return sites


def _attention_site(name: str, layer: nn.Module, paths: Mapping[str, str], norm: nn.Module) -> Site:
    """The keys and values of an attention whose linear layers are at ``paths``."""
    leaf: Any = module_at(layer, paths["q"].rpartition(".")[0])
    key, value = linear_at(layer, paths["k"]), linear_at(layer, paths["v"])
    # Cross attention reads the encoder's states as they are.
    states = norm if ".attn." in name else None
    attention = Attention(leaf.num_heads, key, value, states)
    return Site(name, leaf, key.out_features, key.in_features, attention=attention)
