"""Adapters through the fused operators give what they give laid out by adapter in torch."""

from dataclasses import replace

import pytest
import torch
from adapting import add
from conftest import tiny_whisper

from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.gated import GatedConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.sparse import SparseConfig
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.device import usable
from speechadapt.errors import ConfigError
from speechadapt.model import SpeechModel
from speechadapt.route import Stack

TOKENS = torch.tensor([[41, 42, 44, 46]])
CONFIGS = {
    "sequential": BottleneckConfig(bottleneck=8, points=("out", "ffn.out")),
    "parallel": BottleneckConfig(
        bottleneck=8, points=("ffn.out",), placement="parallel", scale=4.0
    ),
    "plain": BottleneckConfig(bottleneck=20, layer_norm=False, activation="relu"),
    "lora": LoraConfig(rank=4, points=("attn.q", "ffn.in", "ffn.out")),
    "sparse": SparseConfig(bottleneck=8, points=("out",)),
    "gated": GatedConfig(bottleneck=8),  # has no operator: laid out as ever
    "pissa": LoraConfig(rank=4, start="pissa"),
}


def outputs(monkeypatch, waves, config, kernels, train=False):
    """Decoder states of a mixed batch, or gradients, and for how many sites weights were folded."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")  # features have tests of their own
    model = SpeechModel(WhisperBackbone(tiny_whisper(torch.float32)))
    narrow = replace(config, **{config.width: 3}) if config.width else config
    for seed, name in enumerate(("a", "b", "c")):
        add(model, name, narrow if name == "b" else config, seed).train(train)
    routes = ["a", None, Stack("b", "c"), "b"]
    short = [wave[:length] for wave, length in zip(waves, (4000, 1500, 3000), strict=True)]
    mel = model.backbone.features([*short, short[0]], 0.1)
    monkeypatch.setenv("SPEECHADAPT_KERNELS", kernels)
    calls = []
    with running(model.bank.call(routes, model.backbone.key_lengths(mel))) as call:
        states = model.backbone.decoder_states(TOKENS.repeat(4, 1), model.backbone.encode(mel))
        for key, made in call._made.items():
            calls += list(made) if key[0] == "folded" else []
    if not train:
        return states, len(calls)
    pull = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    (states * pull).sum().backward()
    adapters = [model.bank[name] for name in ("a", "b", "c")]
    grads = {f"{a.name}/{k}": p.grad for a in adapters for k, p in a.named_parameters()}
    return grads, len(calls)


def test_a_wish_that_cannot_be_met_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "cuda")
    with pytest.raises(ConfigError, match="SPEECHADAPT_KERNELS=cuda: expected auto, triton, torch"):
        usable("cpu")
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="SPEECHADAPT_KERNELS=triton: no GPU"):
        usable("cpu")


@pytest.mark.parametrize("name", CONFIGS)
def test_values(monkeypatch, waves, name):
    expected, none = outputs(monkeypatch, waves, CONFIGS[name], "torch")
    found, steps = outputs(monkeypatch, waves, CONFIGS[name], "triton")
    assert none == 0
    assert (steps > 0) == (name not in ("gated", "pissa"))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["sequential", "parallel", "lora"])
def test_gradients(monkeypatch, waves, name):
    expected, _ = outputs(monkeypatch, waves, CONFIGS[name], "torch", train=True)
    found, steps = outputs(monkeypatch, waves, CONFIGS[name], "triton", train=True)
    assert steps > 0
    for key, gradient in expected.items():
        torch.testing.assert_close(
            found[key], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )
