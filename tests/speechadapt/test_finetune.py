"""``finetune`` for bases with a head: it learns, resumes, and is plain transformers afterwards."""

import json

import pytest
import torch
from killing import Killed, killed_at
from tiny_backbones import tiny_backbone, write_vocabulary
from tones import command, write_base, write_tones
from transformers import (
    ASTForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForCTC,
)

import speechadapt
from speechadapt.audio import load_audio
from speechadapt.data import load_utterances, write_data_dir
from speechadapt.heads.ctc import read_vocabulary

LETTERS = {"low": "a", "high": "b", "both": "ab"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tones with a letter for each as their text."""
    folder = tmp_path_factory.mktemp("data")
    heard = load_utterances(write_tones(folder))
    spoken = [type(u)(**{**vars(u), "text": LETTERS[u.id.partition("-")[0]]}) for u in heard]
    files = {name: (folder / "data" / name).read_text() for name in ("utt2pitch", "utt2tones")}
    write_data_dir(folder / "spoken", spoken, files)
    return folder / "spoken"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A wav2vec2 that drops units and layers, with lower-case letters; an AST with three labels."""
    folder = tmp_path_factory.mktemp("bases")
    config = tiny_backbone("wav2vec2-stable").model.config.to_dict()
    torch.manual_seed(0)
    config |= {"hidden_dropout": 0.1, "layerdrop": 0.3, "final_dropout": 0.0}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**config))
    model.save_pretrained(folder / "ctc")
    write_vocabulary(folder / "ctc")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdef'"]
    (folder / "ctc" / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    ast = tiny_backbone("ast").model.float()
    ast.config.id2label = {0: "low", 1: "high", 2: "both"}
    ast.save_pretrained(folder / "ast")
    return folder


def finetune(base, data, out, *extra):
    arguments = ("--base", base, "--data", data, "--dev", data, "--out", out, "--steps", 30)
    settings = ("--learning-rate", 0.003, "--eval-every", 10, "--batch-seconds", 10)
    return command("finetune", *arguments, *settings, "--trailing-silence", 0, *extra)


@pytest.fixture(scope="module")
def trained(bases, data, tmp_path_factory):
    """A CTC base after 30 steps."""
    out = tmp_path_factory.mktemp("exp") / "run"
    assert finetune(bases / "ctc", data, out, "--objective", "ctc", "--time-masks", 2) == 0
    return out


def losses(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_a_ctc_base_is_trained_whole(bases, trained):
    assert losses(trained)[-1] < 0.5 * losses(trained)[0]
    result = json.loads((trained / "result.json").read_text())
    assert result["metric"] == "wer" and result["best_error"] < 1.0
    before, after = (
        dict(Wav2Vec2ForCTC.from_pretrained(folder).named_parameters())
        for folder in (bases / "ctc", trained / "model")
    )
    still = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert still == {"wav2vec2.masked_spec_embed"}


def test_the_saved_ctc_base_is_plain_transformers(bases, data, trained):
    folder = trained / "model"
    ours, theirs = speechadapt.load(folder), Wav2Vec2ForCTC.from_pretrained(folder)
    assert read_vocabulary(folder) == read_vocabulary(bases / "ctc")
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == 0 and tokenizer.word_delimiter_token == "|"
    utterance = load_utterances(data)[0]
    wave = load_audio(utterance.audio)
    values = ours.backbone.features([wave], 0.0).values
    with torch.inference_mode():
        logits = theirs.eval()(values).logits
    said = ours.backbone.head.log_probs(ours.encode([wave], [None], 0.0))
    torch.testing.assert_close(said, logits.log_softmax(-1), rtol=1e-5, atol=1e-5)
    assert tokenizer.decode(logits.argmax(-1)[0]) == tokenizer.decode(said.argmax(-1)[0])


def test_an_ast_is_trained_whole(bases, data, tmp_path, capsys):
    out = tmp_path / "run"
    several = ("--labels", "utt2tones", "--multi-label")
    assert finetune(bases / "ast", data, out, *several) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["metric"] == "map_error" and result["best_error"] == 0.0
    assert losses(out)[-1] < 0.5 * losses(out)[0]
    ours = speechadapt.load(out / "model")
    theirs = ASTForAudioClassification.from_pretrained(out / "model")
    assert theirs.config.problem_type == "multi_label_classification"
    assert ours.backbone.head.config.multi_label
    wave = load_audio(load_utterances(data)[0].audio)
    values = ours.backbone.features([wave], None).values.mT
    with torch.inference_mode():
        expected = theirs.eval()(values).logits.sigmoid()
    said = ours.backbone.head.probabilities(ours.encode([wave], [None], None))
    torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    assert command("classify", data, "--base", out / "model", "--top", 2) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: {line[1], line[3]} for line in lines}["both-2"] == {"low", "high"}


def test_it_goes_on_with_the_same_bytes(bases, data, tmp_path):
    """Dropout and dropped layers are drawn anew from (seed, step)."""
    few = ("--checkpoint-every", 2, "--eval-every", 5, "--steps", 5)
    assert finetune(bases / "ctc", data, tmp_path / "whole", *few) == 0
    cut = tmp_path / "cut"
    with pytest.raises(Killed), killed_at(3):
        finetune(bases / "ctc", data, cut, *few)
    assert cut.is_dir() and not (cut / "model").exists()
    assert finetune(bases / "ctc", data, cut, *few) == 0
    whole, again = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")
    )
    assert whole == again


def test_what_makes_no_sense_is_refused(bases, data, tmp_path, capsys):
    bare = tmp_path / "bare"
    tiny_backbone("wav2vec2").model.float().save_pretrained(bare)
    whisper = write_base(tmp_path / "whisper", "whisper")

    def refused(base, *extra):
        assert finetune(base, data, tmp_path / "out", *extra) == 2
        return capsys.readouterr().err

    assert "its checkpoint has no ctc head to train" in refused(bare)
    assert "has no decoder; use ctc" in refused(bases / "ctc", "--objective", "whisper")
    assert "writes no text" in refused(bases / "ast", "--objective", "ctc")
    assert "needs --labels" in refused(bases / "ast")
    assert "no ctc head to train" in refused(whisper, "--objective", "ctc", "--language", "be")
    several = ("--labels", "utt2tones")
    assert "both-2: has 2 labels; give it one" in refused(bases / "ast", *several)
    assert "utt2mood: missing" in refused(bases / "ast", "--labels", "utt2mood")
    assert not (tmp_path / "out").exists()
