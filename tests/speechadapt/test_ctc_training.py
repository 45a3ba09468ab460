"""Adapters with CTC heads: trained, stored, and mixed in one batch with their own vocabularies."""

import json

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from tiny_backbones import tiny_backbone

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.average import average
from speechadapt.adapters.registry import family_of, preset
from speechadapt.cli.main import main
from speechadapt.data import Utterance, write_data_dir
from speechadapt.decoding.ctc import decode_ctc
from speechadapt.decoding.options import DecodeOptions
from speechadapt.errors import AdapterError, ConfigError, DataError
from speechadapt.heads.ctc import CtcConfig, CtcHead, spoken, vocabulary_of
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter, save_adapter
from speechadapt.training.examples import Batch
from speechadapt.training.objectives.ctc import CtcObjective

TEXTS = {"a": "ба ба", "b": "аб", "c": "б а б"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder without a head."""
    folder = tmp_path_factory.mktemp("base")
    tiny_backbone("wav2vec2").model.float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Each letter a tone, each space silence."""
    folder = tmp_path_factory.mktemp("data")
    utterances = []
    for name, text in TEXTS.items():
        time = np.arange(3200) / 16_000
        tones = {"б": np.sin(2 * np.pi * 300 * time), "а": np.sin(2 * np.pi * 1500 * time)}
        parts = [np.concatenate((tones.get(c, 0 * time), 0 * time[:800])) for c in text]
        soundfile.write(folder / f"{name}.wav", 0.3 * np.concatenate(parts), 16_000)
        path = str(folder / f"{name}.wav")
        utterances.append(Utterance(name, path, text=text, speaker=name, duration=0.25 * len(text)))
    write_data_dir(folder / "train", utterances)
    return folder / "train"


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory):
    """What the command makes of them."""
    out = tmp_path_factory.mktemp("exp") / "be"
    arguments = ["train", "--base", base, "--data", data, "--dev", data, "--out", out]
    arguments += ["--adapter", "pfeiffer", "--bottleneck", 32, "--steps", 240, "--eval-every", 60]
    arguments += ["--learning-rate", 0.015, "--trailing-silence", 0.1, "--batch-seconds", 10]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def head_of(*tokens, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = CtcHead.fresh(CtcConfig(("<pad>", "|", *tokens)), width, generator)
    head.tensors["proj.weight"].data.mul_(100)
    return head


def add(model, name, head, seed=0):
    config = preset("adapter_bias")
    info = AdapterInfo(fingerprint=model.backbone.fingerprint)
    sites = model.backbone.sites.values()
    adapter = Adapter.fresh(name, config, family_of(config), sites, info, seed, head)
    return model.bank.add(adapter)


def test_it_learns_to_write(base, data, trained, capsys, tmp_path):
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert losses[-1] < 0.2 * losses[0]
    adapter = trained / "adapter"
    assert main(["transcribe", str(data), "--base", str(base), "--adapter", str(adapter)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert dict(line.split("\t") for line in lines) == TEXTS
    assert json.loads((trained / "result.json").read_text())["best_error"] == 0.0


def test_the_head_travels_with_the_adapter(base, trained, tmp_path):
    model = speechadapt.load(base)
    with pytest.raises(ConfigError, match="have no head, and transcribing needs a ctc head"):
        encoded = model.encode([np.zeros(8000, np.float32)], [None], 0.0)
        decode_ctc(model, encoded, [None], [None], DecodeOptions())
    adapter = model.load_adapter(trained / "adapter")
    assert adapter.head.config == CtcConfig(("<pad>", "|", "а", "б"))
    assert adapter.parameter_count == sum(t.numel() for _, t in adapter.named_tensors())
    save_adapter(adapter, tmp_path / "again")
    again = load_adapter(tmp_path / "again", model.backbone)
    for (key, tensor), (other, value) in zip(
        adapter.named_tensors(), again.named_tensors(), strict=True
    ):
        assert key == other and torch.equal(tensor, value)
    mean = average("mean", [adapter, again])
    assert torch.equal(mean.head.tensors["proj.bias"], adapter.head.tensors["proj.bias"])
    assert set(mean.tensors) == set(adapter.tensors)


def test_each_utterance_of_a_batch_with_its_own_vocabulary(waves):
    model = SpeechModel(tiny_backbone("hubert"))
    add(model, "be", head_of(*"абв")).to("cpu", torch.float64)
    add(model, "en", head_of(*"xyzuvw", seed=1), seed=1).to("cpu", torch.float64)
    routes = ["be", "en", "be"]
    encoded = model.encode(waves, routes, 0.0)
    together = decode_ctc(model, encoded, routes, [None] * 3, DecodeOptions())
    for wave, route, found in zip(waves, routes, together, strict=True):
        alone = decode_ctc(
            model, model.encode([wave], [route], 0.0), [route], [None], DecodeOptions()
        )
        assert alone[0].text == found.text and found.text
        assert set(found.text) <= set("абв " if route == "be" else "xyzuvw ")


def test_damaged_heads_are_refused(base, trained, tmp_path):
    model = speechadapt.load(base)
    folder = tmp_path / "a"
    save_adapter(model.load_adapter(trained / "adapter"), folder)
    tensors = safetensors.torch.load_file(folder / "adapter.safetensors")
    good = json.loads((folder / "speechadapt.json").read_text())

    def refused(word, description=None, changed=None):
        (folder / "speechadapt.json").write_text(json.dumps(description or good))
        safetensors.torch.save_file(changed or tensors, folder / "adapter.safetensors")
        with pytest.raises(AdapterError, match=word):
            load_adapter(folder, model.backbone)

    without = {key: tensor for key, tensor in tensors.items() if key != "head/proj.bias"}
    refused("missing, first head/proj.bias", changed=without)
    more = {**tensors, "head/other": torch.ones(1)}
    refused("left over, first head/other", changed=more)
    refused("kind is 'crf'", {**good, "head": {**good["head"], "kind": "crf"}})
    refused("has no depth", {**good, "head": {**good["head"], "depth": 3}})
    refused("cannot be used", {**good, "head": {**good["head"], "blank": 99}})
    refused("'head' is", {**good, "head": "ctc"})
    longer = {**good["head"], "tokens": [*good["head"]["tokens"], "в"]}
    refused("shape", {**good, "head": longer})
    refused("left over, first head", {k: v for k, v in good.items() if k != "head"})


def test_what_can_be_heard():
    assert spoken("  Don’t — «Стоп»! 12\tkm ") == "don’t стоп 12 km"
    assert spoken("é") == "é"  # composed, so that it is one character
    assert vocabulary_of(["b a", "Á"]).tokens == ("<pad>", "|", "a", "b", "á")


@pytest.mark.parametrize(
    ("utterance", "word"),
    [
        (Utterance("u", "x.wav"), "no transcript"),
        (Utterance("u", "x.wav", text="?!"), "can be heard"),
        (Utterance("u", "x.wav", text="ж"), "vocabulary has no ж"),
        (Utterance("u", "x.wav", text="ббб", duration=0.04), "have no room"),
    ],
)
def test_what_cannot_be_learnt_is_told(utterance, word):
    objective = CtcObjective(tiny_backbone("wav2vec2"), head_of("а", "б"), 0.0)
    objective.check(Utterance("v", "x.wav", text="ббб", duration=0.06))
    with pytest.raises(DataError, match=word):
        objective.check(utterance)


def test_the_loss_is_torchs_and_leaves_padding_out(waves):
    model = SpeechModel(tiny_backbone("wav2vec2"))
    head = head_of("а", "б")
    adapter = add(model, "be", head).to("cpu", torch.float64)
    objective = CtcObjective(model.backbone, adapter.head, 0.0)
    utterances = [Utterance(n, "x.wav", text=t) for n, t in TEXTS.items()]
    targets = objective.targets(Batch(utterances, None))
    assert objective.count(targets) == sum(map(len, TEXTS.values()))
    together = objective.loss(model.encode(waves, ["be"] * 3, 0.0), targets)
    alone = sum(
        objective.loss(model.encode([wave], ["be"], 0.0), [target])
        for wave, target in zip(waves, targets, strict=True)
    )
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_in_few_bits_the_head_stays_whole(base, data, tmp_path, capsys):
    out = tmp_path / "be"
    arguments = ["train", "--base", base, "--data", data, "--dev", data, "--out", out]
    arguments += ["--adapter", "sparse", "--bits", 1, "--steps", 4, "--trailing-silence", 0.1]
    assert main([str(argument) for argument in arguments]) == 0
    description = json.loads((out / "adapter" / "speechadapt.json").read_text())
    assert description["bits"] == description["info"]["training"]["bits"] == 1
    stored = safetensors.torch.load_file(out / "adapter" / "adapter.safetensors")
    assert stored["head/proj.weight"].dtype == torch.float32
    assert stored["encoder.0.out/up.values:codes"].dtype == torch.uint8
    assert stored["encoder.0.out/up.mask"].dtype == torch.uint8
    assert speechadapt.load(base).load_adapter(out / "adapter").head is not None
    capsys.readouterr()
    assert main([*map(str, arguments[:-6]), "--steps", "4"]) == 2  # no longer sparse, no bits
    assert "holds a run with other settings" in capsys.readouterr().err


def test_objectives_that_make_no_sense_are_refused(base, data, tmp_path, capsys):
    ast = tmp_path / "ast"
    tiny_backbone("ast").model.float().save_pretrained(ast)

    def refused(*arguments):
        out = ["--data", str(data), "--out", str(tmp_path / "out")]
        assert main(["train", *map(str, arguments), *out]) == 2
        return capsys.readouterr().err

    assert "has no decoder; use ctc" in refused("--base", base, "--objective", "whisper")
    assert "labels sounds and writes no text" in refused("--base", ast, "--objective", "ctc")
    assert "masks need a spectrogram" in refused("--base", base, "--frequency-masks", 1)
    assert "--rank: conformer has no such setting" in refused("--base", base, "--rank", 3)
    pfeiffer = ("--base", base, "--adapter", "pfeiffer")
    assert "--density: pfeiffer has no such setting" in refused(*pfeiffer, "--density", 0.5)
    settings = tmp_path / "settings.yaml"
    settings.write_text("adapter: {rank: 3}")
    assert f"{settings}: rank: pfeiffer has no" in refused(*pfeiffer, "--config", settings)
    assert "density is 2.0" in refused("--base", base, "--adapter", "sparse", "--density", 2)
    assert "vectors only" in refused("--base", base, "--adapter", "ia3", "--bits", 8)
    assert not (tmp_path / "out" / "adapter").exists()
