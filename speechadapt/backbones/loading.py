"""From a name to a frozen backbone, whichever kind it is."""

from __future__ import annotations

import sys

import torch

from speechadapt.backbones import ast, wav2vec2
from speechadapt.backbones.base import Backbone
from speechadapt.backbones.checkpoints import load_whisper_folder
from speechadapt.backbones.sources import find
from speechadapt.backbones.tokens import read_json
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.errors import CheckpointError


def load_backbone(
    name: str, *, dtype: torch.dtype = torch.float32, offline: bool = False
) -> Backbone:
    """Load a frozen Whisper, wav2vec2-like encoder or AST; say on stderr where it was found.

    Args:
        name: Hub id or folder; see :func:`speechadapt.backbones.sources.find`.
        dtype: Data type of the weights in memory.
        offline: Use only what is on this machine.

    Raises:
        CheckpointError: It cannot be had, is damaged, pickled, or of another kind.
    """
    folder, source = find(name, offline=offline)
    print(f"{name}: weights from {source}", file=sys.stderr)
    config = folder / "config.json"
    # CTranslate2 folders of Whisper name no type.
    kind = read_json(config).get("model_type", "whisper") if config.is_file() else "whisper"
    if kind in wav2vec2.MODEL_TYPES:
        return wav2vec2.load_wav2vec2(folder, name, dtype)
    if kind in ast.MODEL_TYPES:
        return ast.load_ast(folder, name, dtype)
    if kind == "whisper":
        return WhisperBackbone(load_whisper_folder(folder, name, source, dtype))
    known = ", ".join(("whisper", *wav2vec2.MODEL_TYPES, *ast.MODEL_TYPES))
    raise CheckpointError(f"{config}: the model_type is {kind!r}; supported are {known}")
