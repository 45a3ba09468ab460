"""Tiny random backbones of the wav2vec2 family and AST, as transformers builds them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from speechadapt.backbones.ast import ASTBackbone
from speechadapt.backbones.base import Backbone
from speechadapt.backbones.wav2vec2 import Wav2Vec2Backbone

_SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
    "vocab_size": 12,
    "hidden_dropout": 0.0,
    "layerdrop": 0.0,
}
_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}

# name -> (config class, model class, changes to the config)
SPEECH = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model, {}),
    "wav2vec2-stable": (Wav2Vec2Config, Wav2Vec2ForCTC, _STABLE),
    "mms": (Wav2Vec2Config, Wav2Vec2ForCTC, {**_STABLE, "adapter_attn_dim": 6}),
    "hubert": (HubertConfig, HubertModel, {}),
    "hubert-stable": (HubertConfig, HubertModel, _STABLE),
    "wavlm": (WavLMConfig, WavLMModel, {}),
    "wavlm-stable": (WavLMConfig, WavLMModel, _STABLE),
    "data2vec": (Data2VecAudioConfig, Data2VecAudioModel, {"num_conv_pos_embeddings": 2}),
}
NAMES = [*SPEECH, "ast"]


def tiny_backbone(name: str) -> Backbone:
    """A random backbone in float64 whose states differ visibly from position to position."""
    torch.manual_seed(0)
    if name == "ast":
        config = ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_length=128,
            num_mel_bins=32,
            num_labels=3,
        )
        return ASTBackbone(_spread(ASTForAudioClassification(config)), "tiny-ast")
    config_class, model_class, changes = SPEECH[name]
    return Wav2Vec2Backbone(_spread(model_class(config_class(**(_SPEECH | changes)))), name)


def write_vocabulary(folder: Path) -> None:
    """The files of a CTC tokenizer with as many tokens as the tiny models have."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDE\u0451'"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)


def _spread(model):
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.rand_like(parameter) - 0.15)
    return model
