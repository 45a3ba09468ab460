"""One network makes the adapters of all languages."""

import dataclasses
import json

import pytest
import torch
from conftest import tiny_whisper
from killing import Killed, killed_at
from test_training import CONFIG, utterances  # noqa: F401 (a fixture)
from tiny_decoding import write_base

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of, preset
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.cli.main import main
from speechadapt.errors import ConfigError, DataError
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter
from speechadapt.training.examples import TrainingSet
from speechadapt.training.hyper import HyperNetwork, HyperTarget
from speechadapt.training.objectives.whisper import WhisperObjective
from speechadapt.training.trainer import Trainer

PFEIFFER = dataclasses.replace(preset("pfeiffer"), bottleneck=8)


def in_two_languages(utterances):  # noqa: F811
    return [
        dataclasses.replace(utterance, language=("be", "ro")[index % 2])
        for index, utterance in enumerate(utterances)
    ]


def make_trainer(folder, utterances, config=CONFIG):  # noqa: F811
    model = SpeechModel(WhisperBackbone(tiny_whisper(torch.float32)))
    info = AdapterInfo(fingerprint=model.backbone.fingerprint)
    target = HyperTarget(model, PFEIFFER, info, ["be", "ro"], None, 16, 0)
    examples = TrainingSet(model.backbone, utterances, config)
    objective = WhisperObjective(model.backbone)
    return Trainer(model, target, examples, objective, config, folder, {})


@pytest.mark.parametrize("name", ["pfeiffer", "houlsby", "lora", "adapter_bias", "prefix"])
def test_at_the_start_its_adapters_change_no_bit(model, waves, name):
    before = model.encode(waves, [None] * 3, 0.3).states
    HyperTarget(model, preset(name), AdapterInfo(), ["be", "ro"], None, 16, 0)
    assert torch.equal(model.encode(waves, ["be", None, "ro"], 0.3).states, before)


@pytest.mark.parametrize("width", [8, 64, 512])
def test_what_is_made_varies_as_a_linear_layer_starts(model, width):
    config = BottleneckConfig(bottleneck=32)
    sites = model.backbone.sites.values()
    like = Adapter.fresh("be", config, family_of(config), sites, AdapterInfo())
    network = HyperNetwork(like, ["be", "ro"], width, 0)
    for language in ("be", "ro"):
        for site, tensors in network.make(language).items():
            made, expected = (
                t["down.weight"].detach().std() for t in (tensors, like.tensors[site])
            )
            assert abs(float(made / expected) - 1) < 0.1
            assert torch.equal(tensors["norm.weight"], torch.ones(64))
    made = network.make("be")
    first, second = (made[f"encoder.{layer}.out"]["down.weight"] for layer in (0, 1))
    assert not torch.allclose(first, second)


def test_it_learns_and_stores_an_adapter_for_each_language(tmp_path, utterances):  # noqa: F811
    config = dataclasses.replace(CONFIG, steps=25, learning_rate=5e-3)
    spoken = in_two_languages(utterances)
    trainer = make_trainer(tmp_path / "run", spoken, config=config)
    trainer.run()
    rows = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    model, found = trainer.model, {}
    for language in ("be", "ro"):
        adapter = load_adapter(tmp_path / "run" / "adapter" / language, model.backbone)
        assert (adapter.name, adapter.info.language) == (language, language)
        for site, tensors in adapter.tensors.items():
            for key, tensor in tensors.items():
                torch.testing.assert_close(tensor, model.bank[language].tensors[site][key])
        found[language] = adapter.tensors["encoder.1.out"]["up.weight"]
    assert not torch.allclose(found["be"], found["ro"])
    for key, parameter in trainer.target.named_parameters():
        assert parameter.abs().sum() > 0, key


def test_killed_and_resumed_it_ends_the_same(tmp_path, utterances):  # noqa: F811
    spoken = in_two_languages(utterances)
    make_trainer(tmp_path / "whole", spoken).run()
    with pytest.raises(Killed), killed_at(5):
        make_trainer(tmp_path / "cut", spoken).run()
    make_trainer(tmp_path / "cut", spoken).run()
    for name in ("hyper.safetensors", "be/adapter.safetensors", "ro/adapter.safetensors"):
        whole, cut = (tmp_path / run / "adapter" / name for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()


def test_what_it_cannot_make_is_refused(model, utterances):  # noqa: F811
    info = AdapterInfo()
    for name, width in (("lora", 0), ("conformer", 8), ("bitfit", 8), ("sparse", 8), ("head", 8)):
        with pytest.raises(ConfigError, match="--hyper"):
            HyperTarget(model, preset(name), info, ["be", "ro"], None, width, 0)
    target = HyperTarget(model, PFEIFFER, info, ["be", "ro"], None, 8, 0)
    with pytest.raises(DataError, match="u0: its language is 'fr'"):
        target.routes([dataclasses.replace(utterances[0], language="fr")])


def test_the_command(tmp_path, utterances, capsys):  # noqa: F811
    base = write_base(tmp_path / "base")
    lines = [
        json.dumps({"id": u.id, "audio": u.audio, "text": u.text, "language": u.language}) + "\n"
        for u in in_two_languages(utterances)
    ]
    (tmp_path / "all.jsonl").write_text("".join(lines))
    (tmp_path / "one.jsonl").write_text(lines[0])
    command = ["train", "--base", str(base), "--out", str(tmp_path / "run"), "--steps", "2"]
    command += ["--bottleneck", "4", "--hyper", "8", "--data"]
    data = str(tmp_path / "all.jsonl")
    for more, message in (
        ([str(tmp_path / "one.jsonl")], "speak one language"),
        ([data, "--name", "x"], "leave --name out"),
        ([data, "--hyper", "0"], "--hyper 0"),
        ([data, "--objective", "ctc"], "without a head"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert main([*command, data, "--dev", str(tmp_path / "one.jsonl")]) == 0
    assert "2 adapters of" in capsys.readouterr().out
    transcribe = ["transcribe", data, "--base", str(base), "--routes", "utt2lang", "--no-fallback"]
    adapters = [str(tmp_path / "run" / "adapter" / language) for language in ("be", "ro")]
    transcribe += ["--adapter", adapters[0], "--adapter", adapters[1], "--max-tokens", "5"]
    assert main(transcribe) == 0
