"""Layers below everything that learns are run once for each utterance, and nothing changes."""

import dataclasses
import random

import pytest
import soundfile as sf
import torch
from adapting import add
from tiny_backbones import NAMES, tiny_backbone

from speechadapt.adapters.bias import AdapterBiasConfig
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.conv import ConformerConfig
from speechadapt.adapters.headonly import HeadOnlyConfig
from speechadapt.adapters.invertible import InvertibleConfig
from speechadapt.call import running
from speechadapt.data import Utterance
from speechadapt.model import SpeechModel
from speechadapt.training import examples as examples_module
from speechadapt.training.config import Augmentation, TrainConfig
from speechadapt.training.examples import TrainingSet

CONFIG = TrainConfig(trailing_silence=0.2)
CONFIGS = {
    "everywhere": (BottleneckConfig(bottleneck=4, points=("ffn.out", "out")), 0),
    "ends of layers": (BottleneckConfig(bottleneck=4), 1),
    "top layer": (BottleneckConfig(bottleneck=4, points=("ffn.out",), top_layers=1), 1),
    "end of the top layer": (BottleneckConfig(bottleneck=4, top_layers=1), 2),
    "moved at the end": (AdapterBiasConfig(points=("out",), top_layers=1), 2),
    "turned at the end": (InvertibleConfig(bottleneck=4, points=("out",), top_layers=1), 2),
    "convolution": (
        ConformerConfig(bottleneck=4, points=("out",), top_layers=1, placement="sequential"),
        2,
    ),
    "last norm": (BottleneckConfig(bottleneck=4, points=("final",)), 2),
    "front": (InvertibleConfig(bottleneck=4), None),
    "decoder": (BottleneckConfig(bottleneck=4, stacks=("decoder",)), 2),
    "head": (HeadOnlyConfig(), 2),
}


@pytest.fixture
def utterances(tmp_path, waves):
    found = []
    for name, wave in zip("abc", waves, strict=True):
        sf.write(tmp_path / f"{name}.wav", wave, 16_000)
        found.append(Utterance(name, str(tmp_path / f"{name}.wav"), text="a", duration=None))
    return found


def encoded(model, examples):
    heard = examples.batch([0, 1, 2], random.Random(0)).heard
    with torch.no_grad(), running(model.bank.call(["a"] * 3, model.backbone.key_lengths(heard))):
        return heard, model.backbone.encode(heard)


@pytest.mark.parametrize("name", CONFIGS)
def test_whisper_stops_before_the_first_site(model, utterances, name):
    config, layers = CONFIGS[name]
    below = add(model, "a", config, 1).layers_below(model.backbone)
    assert below == layers
    _, expected = encoded(model, TrainingSet(model.backbone, utterances, CONFIG))
    heard, got = encoded(model, TrainingSet(model.backbone, utterances, CONFIG, None, below))
    assert heard.layers == (layers or None)  # before the first layer, features are small
    assert torch.equal(got.lengths, expected.lengths)
    for row, length in enumerate(got.lengths):
        torch.testing.assert_close(got.states[row, :length], expected.states[row, :length])


@pytest.mark.parametrize("top", [None, 1])
@pytest.mark.parametrize("point", ["out", "attn.out"])
@pytest.mark.parametrize("kind", NAMES)
def test_any_backbone_goes_on_behind_the_layers_that_were_run(utterances, kind, point, top):
    model = SpeechModel(tiny_backbone(kind))
    adapter = add(model, "a", BottleneckConfig(bottleneck=4, points=(point,), top_layers=top), 1)
    adapter.train(True)
    below = adapter.layers_below(model.backbone)
    assert below == (top is not None) + (point == "out")
    whole = TrainingSet(model.backbone, utterances, CONFIG)
    kept = TrainingSet(model.backbone, utterances, CONFIG, None, below)
    found = []
    for examples in (whole, kept):
        heard = examples.batch([0, 1, 2], random.Random(0)).heard
        with running(model.bank.call(["a"] * 3, model.backbone.key_lengths(heard))):
            encoded = model.backbone.encode(heard)
        valid = torch.arange(encoded.states.shape[1]) < encoded.lengths[:, None]
        loss = encoded.states[valid].square().sum()
        tensors = dict(adapter.named_parameters())
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        found.append((encoded.lengths, encoded.states[valid], gradients))
    torch.testing.assert_close(found[1], found[0])
    if kind.startswith("wavlm"):
        below = 0  # its first layer makes the position bias of all
    elif kind == "ast" or kind.endswith("-stable") or kind == "mms":
        below = min(below, 1)  # nothing has what the last norm reads
    assert heard.layers == (None if kind == "ast" and not below else below)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(speed=(0.9, 1.1)), Augmentation(time_masks=1)]
)
def test_what_changes_is_not_kept(model, utterances, augmentation):
    config = dataclasses.replace(CONFIG, augmentation=augmentation)
    examples = TrainingSet(model.backbone, utterances, config, None, 2)
    assert examples.batch([0, 1], random.Random(0)).heard.layers is None


def test_where_memory_is_short_features_are_kept(model, utterances, monkeypatch):
    monkeypatch.setattr(examples_module, "KEPT_STATES", 1000)
    add(model, "a", BottleneckConfig(bottleneck=4, top_layers=1))
    heard, _ = encoded(model, TrainingSet(model.backbone, utterances, CONFIG, None, 1))
    assert heard.layers is None
