"""A base that knows nothing yet: random weights of a config, in a folder for transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from speechadapt.backbones.base import CHECKPOINT_FILES
from speechadapt.data import read_data_dir
from speechadapt.errors import ConfigError
from speechadapt.files import replacing, write_json
from speechadapt.heads.ctc import vocabulary_of
from speechadapt_recipes.bases.categories import read_categories
from speechadapt_recipes.bases.front_end import gabor_filters

_KINDS = {"wav2vec2": Wav2Vec2Config, "audio-spectrogram-transformer": ASTConfig}
UNKNOWN = "<unk>"


def write_random_base(config: Path, data: Sequence[Path], out: Path, seed: int) -> int:
    """Write a base with random weights; a wav2vec2's front end starts as band-pass filters.

    Args:
        config: YAML with ``model_type`` and what differs from transformers' defaults.
        data: Training directories. A wav2vec2 gets an output for every character of their texts, an
            AST one for every label of their ``utt2category``.
        out: Where to; an older one is replaced.
        seed: The same seed gives the same weights.

    Returns:
        The number of parameters.

    Raises:
        ConfigError: The file is no such YAML, or a setting is unknown or does not fit the others.
    """
    values = _read(config)
    kind = values.pop("model_type")
    known = set(_KINDS[kind]().to_dict())
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{config}: a {kind} has no setting {unknown[0]}; correct the name")
    try:
        with torch.random.fork_rng(devices=[]), replacing(out, *CHECKPOINT_FILES) as temporary:
            torch.manual_seed(seed)
            make = _wav2vec2 if kind == "wav2vec2" else _ast
            model = make(values, data, temporary)
            model.save_pretrained(temporary)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{config}: no model can be made of it ({error}); correct it") from None
    return sum(parameter.numel() for parameter in model.parameters())


def _read(config: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).split("\n")[0]
        raise ConfigError(f"{config}: cannot be read as YAML ({first}); correct it") from None
    if not isinstance(values, dict) or values.get("model_type") not in _KINDS:
        raise ConfigError(f"{config}: needs a model_type, one of {', '.join(_KINDS)}")
    return values


def _wav2vec2(values: dict[str, Any], data: Sequence[Path], folder: Path) -> PreTrainedModel:
    texts = (u.text or "" for path in data for u in read_data_dir(path, require_text=True))
    blank, delimiter, *characters = vocabulary_of(texts).tokens
    # transformers' tokenizer insists on a token for what it does not know.
    tokens = [blank, delimiter, UNKNOWN, *characters]
    config = Wav2Vec2Config(**values, vocab_size=len(tokens), pad_token_id=0)
    model = Wav2Vec2ForCTC(config)
    first = model.wav2vec2.feature_extractor.conv_layers[0].conv.weight
    with torch.no_grad():
        first.copy_(gabor_filters(first.shape[0], first.shape[2]))
    folder.mkdir()
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    tokenizer = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": blank,
        "word_delimiter_token": delimiter,
        "unk_token": UNKNOWN,
        "bos_token": None,
        "eos_token": None,
        "do_lower_case": False,
    }
    write_json(folder / "tokenizer_config.json", tokenizer)
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    write_json(
        folder / "preprocessor_config.json",
        {**extractor, "sampling_rate": 16_000, "feature_size": 1, "return_attention_mask": True},
    )
    return model


def _ast(values: dict[str, Any], data: Sequence[Path], folder: Path) -> PreTrainedModel:
    found = [labels for path in data for labels in read_categories(path).values()]
    labels = sorted({label for mine in found for label in mine})
    config = ASTConfig(
        **values,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type="multi_label_classification",
    )
    folder.mkdir()
    extractor = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": 16_000,
        "num_mel_bins": config.num_mel_bins,
        "max_length": config.max_length,
        "do_normalize": True,
    }
    write_json(folder / "preprocessor_config.json", extractor)
    return ASTForAudioClassification(config)
