"""``speechadapt classify`` with a route for each utterance: labels, values, and the base's own."""

import json

import pytest
import torch
from tones import command, write_base, write_tones

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import family_of, preset
from speechadapt.data import load_utterances, write_data_dir
from speechadapt.decoding.classify import Labels, Score, classify
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcConfig, CtcHead
from speechadapt.heads.regressor import RegressorConfig, RegressorHead
from speechadapt.store import save_adapter

HEADS = {
    "pitch": (ClassifierHead, ClassifierConfig(("low", "high"))),
    "place": (ClassifierHead, ClassifierConfig(("in", "out", "far"), multi_label=True, layers=3)),
    "level": (RegressorHead, RegressorConfig("level", mean=2.0)),
    "words": (CtcHead, CtcConfig(("<pad>", "|", "a"))),
}
ROUTES = ("pitch", "level", "none", "place", "place", "level", "pitch", "none", "pitch")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tones with a table of routes, a small AST with labels, an adapter with each kind of head."""
    folder = tmp_path_factory.mktemp("home")
    utterances = load_utterances(write_tones(folder))
    routes = dict(zip((u.id for u in utterances), ROUTES, strict=True))
    for name, table in (("routed", routes), ("words", dict.fromkeys(routes, "words"))):
        lines = "".join(f"{key} {route}\n" for key, route in table.items())
        write_data_dir(folder / name, utterances, {"utt2route": lines})
    backbone = speechadapt.load(write_base(folder / "base", "ast")).backbone
    for seed, (name, (kind, config)) in enumerate(HEADS.items()):
        generator = torch.Generator().manual_seed(seed)
        head = kind.fresh(config, backbone.width, generator)
        family, info = family_of(preset("pfeiffer")), AdapterInfo(trailing_silence=0.1)
        info.fingerprint = backbone.fingerprint
        sites = backbone.sites.values()
        adapter = Adapter.fresh(name, preset("pfeiffer"), family, sites, info, seed, head)
        for _, tensor in adapter.named_tensors():
            tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)
        save_adapter(adapter, folder / name / "adapter")
    return folder


def run(home, *extra, data="routed", names=("pitch", "place", "level")):
    adapters = [part for name in names for part in ("--adapter", home / name / "adapter")]
    arguments = ("--base", home / "base", *adapters, "--format", "json", *extra)
    return command("classify", home / data, *arguments)


def test_each_utterance_has_its_own_route(home, capsys):
    """In one pass what each gets alone, whatever its neighbours answer with."""

    def answers(*extra):
        assert run(home, *extra) == 0
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        return {row["id"]: row.get("labels") or row["values"] for row in rows}

    everything = ("--top", 3, "--batch-size", 4)
    together = answers("--routes", "utt2route", *everything)
    alone = {route: answers("--route", route, *everything) for route in set(ROUTES)}
    routes = dict(zip(together, ROUTES, strict=True))
    assert len(together) == 9
    for name, found in together.items():
        assert found == pytest.approx(alone[routes[name]][name], abs=1e-5)
    kinds = {routes[name]: set(found) for name, found in together.items()}
    assert kinds["pitch"] == {"low", "high"} and kinds["place"] == {"in", "out", "far"}
    assert kinds["level"] == {"level"} and kinds["none"] == {"LABEL_0", "LABEL_1", "LABEL_2"}


def test_what_cannot_be_answered_is_told_before_anything_is(home, capsys):
    for extra, sentence in (
        (("--routes", "utt2route", "--route", "pitch"), "give one of them"),
        (("--routes", "utt2x"), "utt2x: missing"),
        ((), "--route or --routes is missing: choose one of pitch, place, level, none"),
    ):
        assert run(home, *extra) == 2
        out, err = capsys.readouterr()
        assert out == "" and sentence in err.splitlines()[-1]
    assert run(home, "--routes", "utt2route", names=("pitch",)) == 2
    assert "no adapter 'level' is loaded" in capsys.readouterr().err
    assert run(home, "--routes", "utt2route", data="words", names=("words",)) == 2
    assert "have a ctc head, and classifying needs a classifier" in capsys.readouterr().err


def test_as_a_library(home):
    adapters = [home / name / "adapter" for name in ("pitch", "level")]
    model = speechadapt.load(home / "base", adapters)
    waves = [(u.id, torch.zeros(4_800).numpy()) for u in load_utterances(home / "data")[:2]]
    routes = {name: route for (name, _), route in zip(waves, ("pitch", "level"), strict=True)}
    found = list(classify(model, waves, routes=routes, trailing_silence=0.0))
    assert [type(answer) for answer in found] == [Labels, Score]
    assert sum(found[0].probabilities.values()) == pytest.approx(1.0)
    assert found[0].seconds == 0.3 and found[1].name == "level"
    with pytest.raises(ConfigError, match="batch size 0"):
        next(classify(model, waves, routes=routes, trailing_silence=0.0, batch_size=0))
