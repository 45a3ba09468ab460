"""Whisper's tokenizer and generation settings for folders that describe them only in part."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

from speechadapt.errors import CheckpointError

MULTILINGUAL_VOCABULARY = 51865  # the .en models have one token less, large-v3 one more

_CONTROL = ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


def load_tokenizer(folder: Path) -> WhisperTokenizer:
    """The Whisper tokenizer of a folder.

    A lone ``tokenizer.json`` marks the special tokens but does not list them as transformers
    expects: without the list, ``decode`` takes language tokens for timestamps.

    Args:
        folder: Holds ``tokenizer.json``, or the files that transformers' ``save_pretrained`` or the
            original checkpoints have (``vocab.json``, ``merges.txt`` …).

    Raises:
        CheckpointError: The files are missing, damaged, or not Whisper's.
    """
    extra: dict[str, Any] = {}
    try:
        if not (folder / "tokenizer_config.json").is_file():
            path = folder / "tokenizer.json"
            added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
            special = [token["content"] for token in added if token["special"]]
            extra = {
                "pad_token": "<|endoftext|>",
                "extra_special_tokens": [t for t in special if t != "<|endoftext|>"],
            }
        tokenizer = WhisperTokenizer.from_pretrained(str(folder), local_files_only=True, **extra)
        vocabulary = tokenizer.get_vocab()
    # The tokenizers library raises plain Exception for a damaged file.
    except Exception as error:
        raise CheckpointError(
            f"{folder}: its tokenizer is missing or damaged ({first_line(error)}); copy the "
            "tokenizer.json of the original model there"
        ) from None
    for token in _CONTROL:
        if token not in vocabulary:
            raise CheckpointError(
                f"{folder}: its tokenizer has no {token}, so it is not Whisper's; copy the "
                "tokenizer.json of the original model there"
            )
    return tokenizer


def generation_config(
    tokenizer: WhisperTokenizer, config: WhisperConfig, settings: dict[str, Any]
) -> GenerationConfig:
    """What transformers' ``generate`` needs to know of a Whisper model.

    Args:
        tokenizer: Gives the ids of the control tokens by their names.
        config: Of the model.
        settings: As in CTranslate2's ``config.json``: ``suppress_ids``, ``suppress_ids_begin``,
            ``lang_ids`` (lists of token ids), ``alignment_heads`` (list of [layer, head]). Each may
            be missing; languages are then all tokens that look like one.

    Raises:
        CheckpointError: A setting is not of that kind or out of range.
    """
    vocabulary = tokenizer.get_vocab()
    end = vocabulary["<|endoftext|>"]
    multilingual = config.vocab_size >= MULTILINGUAL_VOCABULARY
    values: dict[str, Any] = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": vocabulary["<|startoftranscript|>"],
        "no_timestamps_token_id": vocabulary["<|notimestamps|>"],
        "prev_sot_token_id": vocabulary.get("<|startofprev|>"),
        "suppress_tokens": _ids(settings, "suppress_ids", config) or None,
        "begin_suppress_tokens": _ids(settings, "suppress_ids_begin", config) or None,
        "max_initial_timestamp_index": 50,  # OpenAI's default: speech begins in the first second
        "max_length": config.max_target_positions,
        "return_timestamps": False,
        "is_multilingual": multilingual,
    }
    heads = _heads(settings, config)
    if heads:
        values["alignment_heads"] = heads
    if multilingual:
        if not {"<|transcribe|>", "<|translate|>"} <= vocabulary.keys():
            raise CheckpointError(
                f"the tokenizer has no task tokens, but {config.vocab_size} tokens make the model "
                "multilingual; copy the tokenizer.json of the original model there"
            )
        wanted = set(_ids(settings, "lang_ids", config))
        values["lang_to_id"] = {
            token: index
            for token, index in sorted(vocabulary.items(), key=lambda item: item[1])
            if (index in wanted if wanted else _LANGUAGE.fullmatch(token))
        }
        # Without a task and a language, transformers' generate gives no task token at all, and the
        # decoder then babbles.
        values["task"] = "transcribe"
        values["task_to_id"] = {
            task: vocabulary[f"<|{task}|>"]
            for task in ("transcribe", "translate")
            if f"<|{task}|>" in vocabulary
        }
    return GenerationConfig(**values)


def _ids(settings: dict[str, Any], key: str, config: WhisperConfig) -> list[int]:
    """A list of token ids, or an empty one."""
    value = settings.get(key) or []
    if not (
        isinstance(value, list)
        and all(type(item) is int and -1 <= item < config.vocab_size for item in value)
    ):
        raise CheckpointError(
            f"{key!r} in config.json is no list of token ids below {config.vocab_size}; copy the "
            "config.json that belongs to the model"
        )
    return [item for item in value if item >= 0]  # -1 once meant "the default ones"


def _heads(settings: dict[str, Any], config: WhisperConfig) -> list[list[int]]:
    """Cross-attention heads that follow the audio: [decoder layer, head] each."""
    value = settings.get("alignment_heads") or []
    limits = (config.decoder_layers, config.decoder_attention_heads)
    if isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(i) is int and 0 <= i < end for i, end in zip(pair, limits, strict=True))
        for pair in value
    ):
        return value
    raise CheckpointError(
        f"'alignment_heads' in config.json is no list of [layer, head] below {list(limits)}; copy "
        "the config.json that belongs to the model"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: missing or not JSON ({error}); copy the file of the original model there"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: no JSON object; copy the file of the original model there")
    return value


def first_line(error: BaseException) -> str:
    """The first line of an error's text: third parties write paragraphs."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
