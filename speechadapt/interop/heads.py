"""An adapter's head in a plain checkpoint: transformers' models of a task, and what they cannot
hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForCTC,
    PretrainedConfig,
    PreTrainedModel,
)

from speechadapt.backbones.ast import ASTBackbone
from speechadapt.backbones.base import Backbone
from speechadapt.backbones.wav2vec2 import Wav2Vec2Backbone
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierHead
from speechadapt.heads.ctc import CtcHead
from speechadapt.heads.head import Head


def with_head(backbone: Backbone, model: PreTrainedModel, head: Head) -> PreTrainedModel:
    """``model`` with a head in the place of its own, as transformers' class for the task.

    Args:
        backbone: What ``model`` is a changed copy of.
        model: Its weights become those of the result.
        head: CTC (the wav2vec2 family) or a classifier of the summary tokens (AST).

    Raises:
        ConfigError: No class of transformers computes what this head does.
    """
    if fault := _fault(backbone, model.config, head):
        raise ConfigError(
            f"its {head.kind} head would be lost, since {fault}; use the adapter beside its base"
        )
    config = model.config
    if isinstance(head, CtcHead):
        config.vocab_size, config.pad_token_id = len(head.config.tokens), head.config.blank
        made = _empty(AutoModelForCTC, config, model)
        made.lm_head = _linear(head, model.dtype)
    else:
        config.id2label = dict(enumerate(head.config.labels))
        config.label2id = {label: index for index, label in config.id2label.items()}
        made = _empty(AutoModelForAudioClassification, config, model)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        _copy(norm, head, "norm")
        made.classifier.layernorm = norm.to(model.dtype)
        made.classifier.dense = _linear(head, model.dtype)
    return made.eval()


def _fault(backbone: Backbone, config: PretrainedConfig, head: Head) -> str | None:
    """Why no checkpoint can hold ``head``, in words; None = one can."""
    if head.reads_layers:
        return "it reads all layers, and a checkpoint's head the last"
    if isinstance(head, CtcHead) and isinstance(backbone, Wav2Vec2Backbone):
        if head.config.pieces:
            return "a checkpoint's CTC tokenizer cannot join pieces of words to text"
        return None
    if isinstance(head, ClassifierHead) and isinstance(backbone, ASTBackbone):
        if head.config.pooling != "summary":
            return "it reads the mean of all positions, and AST's own the two summary tokens"
        if head.config.epsilon != config.layer_norm_eps:
            return (
                f"the epsilon of its LayerNorm is {head.config.epsilon}, and a checkpoint has one "
                f"for all, {config.layer_norm_eps}"
            )
        return None
    return f"checkpoints of {config.model_type} have no place for it"


def _empty(kind: Any, config: PretrainedConfig, model: PreTrainedModel) -> Any:
    """A model of that kind around the encoder of ``model``, its head without memory."""
    with torch.device("meta"):
        made = kind.from_config(config)
    setattr(made, made.base_model_prefix, model.base_model)
    return made


def _linear(head: Head, dtype: torch.dtype) -> nn.Linear:
    outputs, width = head.tensors["proj.weight"].shape
    layer = nn.Linear(width, outputs)
    _copy(layer, head, "proj")
    return layer.to(dtype)


def _copy(layer: nn.Module, head: Head, name: str) -> None:
    for part in ("weight", "bias"):
        tensor: Tensor = head.tensors[f"{name}.{part}"]
        setattr(layer, part, nn.Parameter(tensor.detach().clone(), requires_grad=False))
