"""What the bank takes, and what it forgets; adapters that would attach nowhere."""

import pytest
from adapting import add
from conftest import tiny_whisper

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.conv import ConvPassConfig
from speechadapt.adapters.invertible import InvertibleConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of, preset
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.errors import AdapterError, ConfigError, RouteError


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (InvertibleConfig(top_layers=1), "points embed, stacks encoder, top_layers 1 leave no pl"),
        (LoraConfig(points=("cross.q",), stacks=("encoder",)), "points cross.q, stacks encoder l"),
        # Its reason, where it was offered places and took none.
        (ConvPassConfig(points=("*",), stacks=("decoder",)), r"leave no place \(.*whole sequence"),
    ],
)
def test_what_attaches_nowhere_is_refused(model, config, words):
    sites = model.backbone.sites.values()
    with pytest.raises(ConfigError, match=f"{config.method} attaches nowhere: .*{words}"):
        Adapter.fresh("a", config, family_of(config), sites, AdapterInfo())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_layers": 3}, "attaches to encoder.2.out, which this backbone does not have"),
        ({"d_model": 32}, "its tensors at encoder.0.out are made for another width"),
    ],
)
def test_an_adapter_of_another_backbone_is_refused(model, changes, words):
    """Also one that was never on disk, where a fingerprint would tell."""
    config = preset("pfeiffer")
    sites = WhisperBackbone(tiny_whisper(**changes)).sites.values()
    foreign = Adapter.fresh("z", config, family_of(config), sites, AdapterInfo())
    with pytest.raises(AdapterError, match=f"adapter 'z': {words}"):
        model.bank.add(foreign)
    assert "z" not in model.bank


def test_the_bank_forgets_what_is_removed(model):
    add(model, "a", LoraConfig(rank=1))
    with pytest.raises(RouteError):
        model.bank.call(["a", "b"])
    assert model.bank._last_used == {}
    model.bank.call(["a"])
    model.bank.remove("a")
    assert model.bank._last_used == {}


def test_an_empty_batch_needs_no_silence(model):
    assert model.trailing_silence([]) == 0.0
