"""Loading Whisper from folders of every shape and format, whole or damaged."""

import json
from pathlib import Path

import pytest
import torch
from whisper_files import (
    ct2_variables,
    logits,
    model_bin,
    tiny_whisper,
    write_ct2,
    write_tokenizer,
    write_transformers,
)

from speechadapt.backbones.checkpoints import fingerprint, load_whisper
from speechadapt.backbones.weights import checksum
from speechadapt.errors import CheckpointError

# Mel bins, vocabulary, and layers in the proportion of the published models (a quarter of them).
VARIANTS = {
    "tiny": (80, 51865, 1, 1),
    "tiny.en": (80, 51864, 1, 1),
    "base": (80, 51865, 2, 2),
    "small": (80, 51865, 3, 3),
    "medium": (80, 51865, 6, 6),
    "medium.en": (80, 51864, 6, 6),
    "large-v3": (128, 51866, 8, 8),
    "turbo": (128, 51866, 8, 1),
    "distil-small.en": (80, 51864, 3, 1),
    "distil-large-v3": (128, 51866, 8, 1),
}


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


@pytest.fixture
def folder(original, tmp_path):
    """A good folder that a test may damage."""
    return write_transformers(tmp_path / "model", original)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_shape_loads_from_both_formats(variant, tmp_path, capsys):
    mels, vocabulary, encoder_layers, decoder_layers = VARIANTS[variant]
    original = tiny_whisper(
        num_mel_bins=mels,
        vocab_size=vocabulary,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
    )
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [220, 256]}
    folders = [
        write_transformers(tmp_path / "transformers", original),
        write_ct2(tmp_path / "ct2", model_bin(ct2_variables(original)), settings),
    ]
    wanted = logits(original)
    for folder in folders:
        loaded = load_whisper(folder)
        assert torch.equal(logits(loaded.model), wanted)
        assert loaded.fingerprint == fingerprint(loaded.model) == fingerprint(original)
        assert checksum(loaded.model) == checksum(original)
        assert not loaded.model.training
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert loaded.model.config.num_mel_bins == mels
        assert loaded.generation is loaded.model.generation_config
        assert loaded.generation.is_multilingual == (not variant.endswith(".en"))
        assert hasattr(loaded.generation, "lang_to_id") == (not variant.endswith(".en"))
        assert loaded.generation.decoder_start_token_id == 257
        assert loaded.generation.no_timestamps_token_id == 267
        assert loaded.tokenizer.decode([257, 259, 263, 267, 64, 65, 256], True) == "ab"
        assert loaded.name == str(folder)
        assert str(folder) in loaded.source
        assert f"weights from the folder {folder}" in capsys.readouterr().err


def test_a_folder_without_generation_settings_gets_them_from_its_tokenizer(tmp_path):
    folder = write_transformers(tmp_path / "m", tiny_whisper(vocab_size=51865))
    (folder / "generation_config.json").unlink()
    generation = load_whisper(folder).generation
    assert generation.lang_to_id == {"<|en|>": 258, "<|be|>": 259, "<|ro|>": 260, "<|haw|>": 261}
    assert generation.task_to_id == {"transcribe": 263, "translate": 262}
    assert generation.no_timestamps_token_id == 267


def edit_json(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def pickled_model_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "model.bin")


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    shards = {"a": "model-00001-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "another model": (lambda f: edit_json(f / "config.json", model_type="bert"), "'bert'"),
    "no model type": (lambda f: edit_json(f / "config.json", model_type=None), "model_type"),
    "only pickled weights": (only_pickled, "pickled"),
    "a pickle named model.bin": (pickled_model_bin, "not a CTranslate2 model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "a missing shard": (missing_shard, "no weights"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "cannot be loaded"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be loaded"),
    "a layer too many": (
        lambda f: edit_json(f / "config.json", encoder_layers=3),
        "missing keys",
    ),
    "a layer too few": (
        lambda f: edit_json(f / "config.json", encoder_layers=1),
        "unexpected keys",
    ),
    "another width": (lambda f: edit_json(f / "config.json", d_model=32), ""),
    "a width that is no number": (lambda f: edit_json(f / "config.json", d_model="x"), ""),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_give_one_sentence(folder, case):
    damage, words = BROKEN[case]
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_whisper(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert words in message
    assert "\n" not in message and len(message) < 500


def test_a_tokenizer_alone_is_no_model(tmp_path):
    write_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_whisper(tmp_path)
