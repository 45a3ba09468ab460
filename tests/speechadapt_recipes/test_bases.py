"""Small bases: random ones to begin with, and what is stored of a finished run."""

import json
from dataclasses import replace

import pytest
import torch
from noisy_clips import write_sounds

import speechadapt
from speechadapt.data import read_data_dir, write_data_dir
from speechadapt.errors import CheckpointError, ConfigError
from speechadapt_eval.errors import EvalError
from speechadapt_recipes.bases.categories import write_categories
from speechadapt_recipes.bases.front_end import gabor_filters
from speechadapt_recipes.bases.random_base import write_random_base
from speechadapt_recipes.bases.store import store
from speechadapt_recipes.cli import main


def test_band_pass_filters_are_where_they_should_be():
    filters = gabor_filters(32, 256)[:, 0].double()
    assert filters.shape == (32, 256)
    response = torch.fft.rfft(filters, 4096).abs()
    peaks = response.argmax(1) * 16_000 / 4096
    assert (peaks[:16].diff() > 0).all() and peaks[0] > 60 and peaks[15] < 7600
    torch.testing.assert_close(peaks[:16], peaks[16:], rtol=0.1, atol=20.0)
    inner = (
        (filters[:16] * filters[16:]).sum(1) / filters[:16].norm(dim=1) / filters[16:].norm(dim=1)
    )
    assert inner.abs().max() < 0.1  # cosine and sine


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two utterances with Cyrillic and Romanian letters."""
    folder = tmp_path_factory.mktemp("texts")
    said = {"s-0": "Жа ба!", "s-1": "să"}
    utterances = [replace(u, text=said[u.id], speaker="s") for u in write_sounds(folder, said, 0.3)]
    write_data_dir(folder / "data", utterances, {"LICENCE": "free\n"})
    return folder / "data"


LABELS = {"a": ("lang:be", "scene:hum"), "b": ("sound:bird",), "c": ("lang:ro",)}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three clips with categories."""
    folder = tmp_path_factory.mktemp("labelled")
    write_categories(folder / "data", write_sounds(folder, LABELS, 0.3), LABELS, "free\n")
    return folder / "data"


TINY = {
    "wav2vec2": """
model_type: wav2vec2
hidden_size: 16
num_hidden_layers: 2
num_attention_heads: 2
intermediate_size: 16
conv_dim: [8, 8]
conv_kernel: [40, 3]
conv_stride: [20, 16]
num_feat_extract_layers: 2
feat_extract_norm: layer
conv_bias: true
do_stable_layer_norm: true
num_conv_pos_embeddings: 4
num_conv_pos_embedding_groups: 2
""",
    "ast": """
model_type: audio-spectrogram-transformer
hidden_size: 16
num_hidden_layers: 1
num_attention_heads: 2
intermediate_size: 16
num_mel_bins: 32
max_length: 64
time_stride: 16
frequency_stride: 16
""",
}


def initialise(tmp_path, kind, data, name="init", *more):
    config = tmp_path / "model.yaml"
    config.write_text(TINY[kind])
    arguments = ["init", "--config", config, "--data", data, "--out", tmp_path / name, *more]
    assert main([str(argument) for argument in arguments]) == 0
    return tmp_path / name


def test_a_random_wav2vec2_has_the_characters_of_its_data(texts, tmp_path, capsys):
    folder = initialise(tmp_path, "wav2vec2", texts)
    model = speechadapt.load(str(folder))
    assert model.backbone.head.config.tokens == ("<pad>", "|", "<unk>", *"săабж")
    assert f"{model.backbone.parameter_count:,} parameters" in capsys.readouterr().out
    first = model.backbone.model.wav2vec2.feature_extractor.conv_layers[0].conv.weight
    assert torch.equal(first, gabor_filters(8, 40))
    again = initialise(tmp_path, "wav2vec2", texts, "again")
    weights = "model.safetensors"
    assert (again / weights).read_bytes() == (folder / weights).read_bytes()
    other = initialise(tmp_path, "wav2vec2", texts, "other", "--seed", 1)
    assert (other / weights).read_bytes() != (folder / weights).read_bytes()


def test_transformers_reads_the_vocabulary_of_a_random_wav2vec2(texts, tmp_path):
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    first = read_data_dir(texts)[0]
    data = tmp_path / "data"
    write_data_dir(data, [replace(first, text="ab a")])
    folder = initialise(tmp_path, "wav2vec2", data)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    assert tokenizer("ab a").input_ids == [3, 4, 1, 3]
    assert tokenizer.decode([3, 0, 4, 4, 1, 3]) == "ab a"
    assert Wav2Vec2FeatureExtractor.from_pretrained(folder).do_normalize


def test_a_random_ast_has_the_labels_of_its_data(labelled, tmp_path):
    folder = initialise(tmp_path, "ast", labelled)
    head = speechadapt.load(str(folder)).backbone.head
    assert head.config.multi_label
    assert head.config.labels == tuple(sorted(label for mine in LABELS.values() for label in mine))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model_type: lstm", "needs a model_type"),
        ("[", "cannot be read as YAML"),
        (TINY["ast"] + "hiden_size: 3", "has no setting hiden_size"),
        (TINY["wav2vec2"] + "num_conv_pos_embedding_groups: 3", "no model can be made of it"),
    ],
)
def test_configs_that_make_no_model_are_refused(texts, tmp_path, text, word):
    config = tmp_path / "model.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=word):
        write_random_base(config, [texts], tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def finished(labelled, tmp_path):
    """A run as ``finetune`` leaves it, of an AST that is as random as before."""
    init = initialise(tmp_path, "ast", labelled)
    run = tmp_path / "run"
    model = speechadapt.load(str(init)).backbone
    model.save(model.model, run / "model")
    result = {"steps": 9, "best_step": 6, "seconds": 61.4}
    (run / "result.json").write_text(json.dumps(result))
    return init, run, labelled


def test_a_stored_base_is_half_as_large_loads_and_has_a_card(finished, tmp_path):
    init, run, data = finished
    results, out = tmp_path / "dev.md", tmp_path / "base"
    results.write_text("| a | table |\n")
    arguments = ["store", "--run", run, "--init", init, "--data", data, "--results", results]
    arguments += ["--command", "speechadapt finetune", "--note", "commit 123", "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    size = (out / "model.safetensors").stat().st_size
    assert size < 0.6 * (run / "model/model.safetensors").stat().st_size
    before, after = speechadapt.load(str(run / "model")), speechadapt.load(str(out))
    assert before.backbone.fingerprint == after.backbone.fingerprint
    card = (out / "README.md").read_text()
    parts = ("commit 123", "`speechadapt finetune`", "| a | table |", "  - free", "no more than")
    for part in (*parts, f"{after.backbone.parameter_count:,} parameters", "9, kept", "6; 61 s"):
        assert part in card


def test_bases_that_are_too_large_or_unfinished_are_not_stored(finished, tmp_path):
    init, run, data = finished
    with pytest.raises(CheckpointError, match=r"bytes in float16, 1,000 are allowed"):
        store(run, init, tmp_path / "base", [data], "", "", "", most_bytes=1000)
    (run / "result.json").unlink()
    with pytest.raises(EvalError, match="missing; run the earlier"):
        store(run, init, tmp_path / "base", [data], "", "", "")
    assert not (tmp_path / "base").exists()
