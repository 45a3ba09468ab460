"""CTC and classifier heads of checkpoints, against transformers; the commands that use them."""

import json

import numpy as np
import pytest
import soundfile
import torch
from tiny_backbones import tiny_backbone, write_vocabulary
from transformers import Wav2Vec2CTCTokenizer

import speechadapt
from speechadapt.backbones.base import Encoded
from speechadapt.cli.main import main
from speechadapt.data import Utterance, write_data_dir
from speechadapt.decoding.ctc import decode_ctc
from speechadapt.decoding.options import DecodeOptions
from speechadapt.errors import CheckpointError, ConfigError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcHead
from speechadapt.store import load_adapter


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    """A folder with a tiny CTC model whose head says something at every position."""
    folder = tmp_path_factory.mktemp("ctc")
    model = tiny_backbone("wav2vec2-stable").model.float()
    with torch.no_grad():
        model.lm_head.weight.mul_(40.0)
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture(scope="module")
def ast(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    model = tiny_backbone("ast").model.float()
    model.config.id2label = {0: "speech", 1: "music", 2: "noise"}
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def clips(waves, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, wave in zip("abc", waves, strict=True):
        soundfile.write(folder / f"{name}.wav", wave, 16_000, subtype="FLOAT")
    return folder


def test_ctc_text_is_that_of_transformers(ctc, waves):
    """Logits and text, mixed lengths in one batch, and each utterance as alone."""
    model = speechadapt.load(ctc)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(ctc)
    routes, options = [None] * 3, DecodeOptions()
    encoded = model.encode(waves, routes, 0.0)
    found = decode_ctc(model, encoded, routes, routes, options)
    for wave, hypothesis in zip(waves, found, strict=True):
        values = model.backbone.features([wave], 0.0).values
        with torch.inference_mode():
            logits = model.backbone.model(values).logits
        path = logits.argmax(-1)[0]
        # With skip_special_tokens transformers takes blanks out before it merges repeats: AA -> A.
        expected = tokenizer.decode(path)
        for token in ("<s>", "</s>", "<unk>"):
            expected = expected.replace(token, "")
        assert hypothesis.text == " ".join(expected.split()) and hypothesis.text
        assert "".join(word.text for word in hypothesis.words) == hypothesis.text
        best = logits.log_softmax(-1).max(-1).values.mean()
        assert hypothesis.avg_logprob == pytest.approx(float(best), abs=1e-4)
    assert len({hypothesis.text for hypothesis in found}) == 3


def test_a_new_head_starts_with_what_the_base_has_learnt(ctc, clips, tmp_path, capsys):
    """Of the tokens both have, in either case; others are drawn."""
    own = speechadapt.load(ctc).backbone.head
    texts = {"a": "e a", "b": "a é", "c": "ea"}
    lines = [Utterance(name, str(clips / f"{name}.wav"), text=text) for name, text in texts.items()]
    write_data_dir(tmp_path / "data", lines)
    command = ["train", "--base", str(ctc), "--data", str(tmp_path / "data"), "--steps", "1"]
    command += ["--learning-rate", "1e-12", "--adapter", "head", "--out", str(tmp_path / "out")]
    assert main(command) == 0, capsys.readouterr().err
    head = load_adapter(tmp_path / "out/adapter", speechadapt.load(ctc).backbone).head
    index = own.config.index
    alike = {
        head.config.blank: own.config.blank,
        head.config.index["|"]: index[own.config.delimiter],
        **{head.config.index[c]: index.get(c, index.get(c.upper())) for c in "ae"},
    }
    for mine, theirs in alike.items():
        for key in ("proj.weight", "proj.bias"):
            torch.testing.assert_close(head.tensors[key][mine], own.tensors[key][theirs])
    new = head.tensors["proj.weight"][head.config.index["é"]]
    assert not any(torch.allclose(new, row) for row in own.tensors["proj.weight"])


def test_word_times_follow_the_positions(ctc):
    """A path made by hand: blanks, repeats, a delimiter."""
    model = speechadapt.load(ctc)
    head = model.backbone.head
    path = [0, 5, 5, 0, 5, 4, 4, 6, 0, 7, 3, 0]
    wanted = torch.nn.functional.one_hot(torch.tensor(path), 12).float() * 50
    states = torch.linalg.lstsq(head.tensors["proj.weight"].double(), wanted.T.double()).solution
    model.backbone.head = CtcHead(
        head.config,
        {
            "proj.weight": head.tensors["proj.weight"].double(),
            "proj.bias": torch.zeros(12, dtype=torch.float64),
        },
    )
    encoded = Encoded(states.T[None], torch.tensor([len(path)]))
    (found,) = decode_ctc(model, encoded, [None], ["be"], DecodeOptions())
    step = model.backbone.position_seconds
    assert step == pytest.approx(160 / 16_000)
    assert found.text == "AA BC" and found.language == "be"
    times = [(round(w.start / step), round(w.end / step), w.text) for w in found.words]
    assert times == [(1, 5, "AA"), (7, 10, " BC")]
    assert found.tokens == (5, 5, 4, 6, 7, 3)


def test_silence_is_no_text(ctc):
    model = speechadapt.load(ctc)
    model.backbone.head.tensors["proj.bias"].data = torch.eye(12)[0] * 1e6
    encoded = model.encode([np.zeros(16_000, np.float32)], [None], 0.0)
    (found,) = decode_ctc(model, encoded, [None], [None], DecodeOptions())
    assert found.text == "" and found.words == () and found.segments == ()


@pytest.mark.parametrize("kind", ["txt", "json", "srt", "kaldi"])
def test_transcribe_command_with_a_ctc_base(ctc, clips, capsys, kind):
    inputs = [str(clips / "a.wav")] if kind == "srt" else [str(clips)]
    assert main(["transcribe", *inputs, "--base", str(ctc), "--format", kind]) == 0
    out = capsys.readouterr().out
    assert out.strip()
    if kind == "json":
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["id"] for row in rows] == ["a", "b", "c"]
        assert all(row["words"][0]["start"] <= row["words"][0]["end"] for row in rows)


@pytest.mark.parametrize("extra", [["--beam", "5"], ["--task", "translate"]])
def test_what_ctc_does_not_have_is_refused(ctc, clips, capsys, extra):
    assert main(["transcribe", str(clips), "--base", str(ctc), *extra]) == 2
    assert "CTC head decodes greedily" in capsys.readouterr().err


def test_classes_are_those_of_transformers(ast, waves):
    model = speechadapt.load(ast)
    head = model.backbone.head
    assert head.config.labels == ("speech", "music", "noise")
    encoded = model.encode(waves, [None] * 3, None)
    values = model.backbone.features(waves, None).values.mT
    with torch.inference_mode():
        expected = model.backbone.model(values).logits.softmax(-1)
    torch.testing.assert_close(head.probabilities(encoded), expected, rtol=1e-5, atol=1e-6)


def test_mean_pooling_leaves_padding_out():
    head = ClassifierHead(
        ClassifierConfig(("a", "b"), multi_label=True),
        {"proj.weight": torch.eye(2), "proj.bias": torch.zeros(2)},
    )
    states = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [99.0, 99.0]]])
    encoded = Encoded(states, torch.tensor([2]))
    assert torch.equal(head.logits(encoded), torch.tensor([[2.0, 1.0]]))
    assert torch.equal(head.probabilities(encoded), torch.tensor([[2.0, 1.0]]).sigmoid())


def test_classify_command(ast, clips, capsys):
    assert main(["classify", str(clips), "--base", str(ast), "--top", "2"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert all(len(row) == 5 and float(row[2]) >= float(row[4]) for row in rows)
    assert "3 recordings" in err
    assert main(["classify", str(clips), "--base", str(ast), "--format", "json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["id"] == "a" and list(first["labels"]) == [rows[0][1]]


def test_bad_recordings_are_told_or_counted(ast, clips, capsys):
    (clips / "b.wav").write_bytes(b"RIFF")
    assert main(["classify", str(clips), "--base", str(ast)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("a\t") and "b.wav" in err and "Traceback" not in err
    assert main(["classify", str(clips), "--base", str(ast), "--skip-bad"]) == 0
    out, err = capsys.readouterr()
    assert [line[0] for line in out.splitlines()] == ["a", "c"]
    assert "1 of 3 recordings left out" in err


def test_a_base_without_the_head_is_told(ast, ctc, clips, capsys):
    assert main(["transcribe", str(clips), "--base", str(ast)]) == 2
    assert "have a classifier head, and transcribing needs a ctc head" in capsys.readouterr().err
    assert main(["classify", str(clips), "--base", str(ctc)]) == 2
    assert "have a ctc head, and classifying needs a classifier" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["classify", str(clips)])


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, "missing, so what the outputs stand for"),
        ({"vocab.json": "[1, 2]"}, "no vocabulary"),
        ({"vocab.json": "{"}, "no vocabulary"),
        ({"vocab.json": '{"a": 0, "b": 1}'}, "has no <pad>"),
        ({"vocab.json": '{"<pad>": 0, "b": 1}'}, "12 outputs and vocab.json 2 tokens"),
    ],
)
def test_broken_vocabularies_are_told(ctc, tmp_path, files, word):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(ctc / name)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=word):
        speechadapt.load(tmp_path)


def test_vocabulary_of_several_languages(ctc, tmp_path):
    """MMS has one for each language, and names the one its weights are for."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(ctc / name)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefg"]
    both = {
        "eng": {token: index for index, token in enumerate(tokens)},
        "bel": {token.upper(): index for index, token in enumerate(tokens)},
    }
    (tmp_path / "vocab.json").write_text(json.dumps(both))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"target_lang": "eng"}))
    assert speechadapt.load(tmp_path).backbone.head.config.tokens == tuple(tokens)


def test_heads_do_not_decode_what_they_are_not(ast, waves):
    model = speechadapt.load(ast)
    encoded = model.encode(waves[:1], [None], None)
    with pytest.raises(ConfigError, match="needs a ctc head"):
        decode_ctc(model, encoded, [None], [None], DecodeOptions())
