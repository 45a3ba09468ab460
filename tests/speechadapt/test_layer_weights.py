"""Heads that read a weighted sum of all layers, on every backbone."""

import pytest
import torch
from adapting import add
from conftest import tiny_whisper
from tiny_backbones import NAMES, tiny_backbone

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import family_of, preset
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.errors import AdapterError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcConfig, CtcHead
from speechadapt.heads.regressor import RegressorConfig, RegressorHead
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter, save_adapter

LAYERS = 3  # of the tiny models: what the first reads, and what the two make


@pytest.fixture(params=["whisper", *NAMES])
def model(request):
    if request.param == "whisper":
        return SpeechModel(WhisperBackbone(tiny_whisper()))
    return SpeechModel(tiny_backbone(request.param))


def head_of(kind, width, layers, seed=0):
    configs = {
        CtcHead: lambda: CtcConfig(("<pad>", "|", "a", "b"), layers=layers),
        ClassifierHead: lambda: ClassifierConfig(("x", "y", "z"), layers=layers),
        RegressorHead: lambda: RegressorConfig("mos", 3.0, 2.0, layers=layers),
    }
    generator = torch.Generator().manual_seed(seed)
    head = kind.fresh(configs[kind](), width, generator)
    for tensor in head.tensors.values():
        tensor.data += 0.5 * torch.randn(tensor.shape, generator=generator)
    return head


def put(model, name, kind, layers, chosen="adapter_bias", seed=0):
    """An adapter with an effect and a head, in the bank."""
    adapter = add(model, name, preset(chosen), seed)
    adapter.head = head_of(kind, model.backbone.width, layers, seed)
    adapter.info.fingerprint = model.backbone.fingerprint
    return adapter.to("cpu", torch.float64)


def said(model, encoded, row, route):
    """What the head of a route makes of one utterance."""
    head, mine = model.head(route), encoded.rows(torch.tensor([row]))
    if isinstance(head, CtcHead):
        return head.log_probs(mine)[0]
    return head.probabilities(mine)[0] if isinstance(head, ClassifierHead) else head.values(mine)


def test_layers_are_those_of_the_encoder_with_its_adapters(model, waves):
    put(model, "deep", ClassifierHead, LAYERS)
    put(model, "flat", ClassifierHead, 0)
    assert model.backbone.depth + 1 == LAYERS
    for route in ("flat", None):
        assert model.encode(waves, [route] * 3, 0.0).layers is None  # nobody asked
    deep, flat = (model.encode(waves, [name] * 3, 0.0) for name in ("deep", "flat"))
    assert len(deep.layers) == LAYERS
    assert torch.equal(deep.states, flat.states) and deep.layers[-1] is deep.states
    seen = []
    leaf = model.backbone.sites["encoder.0.out"].leaf
    handle = leaf.register_forward_hook(lambda _m, _i, output: seen.append(output))
    model.encode(waves, ["deep"] * 3, 0.0)
    handle.remove()
    made = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert torch.equal(deep.layers[1], made)
    model.bank["deep"].tensors["encoder.0.ffn.out"]["shift"].data[0] += 1.0
    changed = model.encode(waves, ["deep"] * 3, 0.0)
    assert torch.equal(changed.layers[0], deep.layers[0])
    assert not torch.allclose(changed.layers[1], deep.layers[1])


def test_mixed_is_single(model, waves):
    """Heads of each kind, one that reads the last layer alone, and the frozen base."""
    put(model, "deep", CtcHead, LAYERS, seed=1)
    put(model, "probe", ClassifierHead, LAYERS, "head", seed=2)
    put(model, "flat", RegressorHead, 0, seed=3)
    routes = ["deep", "flat", "probe"]
    together = model.encode(waves, routes, 0.0)
    for row, (wave, route) in enumerate(zip(waves, routes, strict=True)):
        alone = model.encode([wave], [route], 0.0)
        assert (alone.layers is None) == (route == "flat")
        expected = said(model, alone, 0, route)
        torch.testing.assert_close(said(model, together, row, route), expected, rtol=1e-9, atol=0)
    mixed = model.encode(waves, ["deep", None, "flat"], 0.0)
    torch.testing.assert_close(
        said(model, mixed, 0, "deep"), said(model, together, 0, "deep"), rtol=1e-9, atol=0
    )


def test_the_sum_is_a_softmax(model, waves):
    head = put(model, "a", ClassifierHead, LAYERS).head
    encoded = model.encode(waves[:1], ["a"], 0.0)
    shares = head.tensors["layers.weight"].exp() / head.tensors["layers.weight"].exp().sum()
    expected = sum(s * states for s, states in zip(shares, encoded.layers, strict=True))
    torch.testing.assert_close(head.read(encoded), expected)
    fresh = ClassifierHead.fresh(head.config, model.backbone.width, torch.Generator())
    assert fresh.tensors["layers.weight"].softmax(0).tolist() == pytest.approx([1 / 3] * 3)


def test_gradients_reach_weights_head_and_adapter(model, waves):
    adapter = put(model, "a", ClassifierHead, LAYERS).train()
    features = model.backbone.features(waves, 0.0)
    with running(model.bank.call(["a"] * 3, model.backbone.key_lengths(features))):
        logits = adapter.head.logits(model.backbone.encode(features, layers=True))
    logits[:, 0].square().sum().backward()
    encoder = [(k, t) for k, t in adapter.named_parameters() if not k.startswith("decoder")]
    dead = [key for key, tensor in encoder if not tensor.grad.abs().sum() > 0]
    assert dead == []
    assert all(p.grad is None for p in model.backbone.model.parameters())


@pytest.mark.parametrize("kind", [CtcHead, ClassifierHead, RegressorHead])
@pytest.mark.parametrize("chosen", ["adapter_bias", "head"])
def test_saved_and_loaded_it_is_the_same(kind, chosen, waves, tmp_path):
    model = SpeechModel(tiny_backbone("wav2vec2"))
    put(model, "a", kind, LAYERS, chosen)
    expected = said(model, model.encode(waves[:1], ["a"], 0.0), 0, "a")
    save_adapter(model.bank["a"], tmp_path / "a", torch.float64)
    loaded = model.bank.add(load_adapter(tmp_path / "a", model.backbone))
    assert loaded.head.config == head_of(kind, 32, LAYERS).config
    again = said(model, model.encode(waves[:1], ["a"], 0.0), 0, "a")
    torch.testing.assert_close(again, expected, rtol=1e-12, atol=0)


def test_a_head_of_a_deeper_base_is_refused(tmp_path):
    model = SpeechModel(tiny_backbone("wav2vec2"))
    put(model, "a", ClassifierHead, LAYERS + 1)
    save_adapter(model.bank["a"], tmp_path / "a")
    with pytest.raises(AdapterError, match="layers is 4, expected 0 or 3"):
        load_adapter(tmp_path / "a", model.backbone)


def test_an_adapter_that_attaches_nowhere_changes_no_bit(model, waves):
    before = model.encode(waves, [None] * 3, 0.0)
    config = preset("head")
    adapter = Adapter.fresh("a", config, family_of(config), model.backbone.sites.values(),
                            AdapterInfo())  # fmt: skip
    model.bank.add(adapter)
    assert adapter.parameter_count == 0 and list(adapter.named_tensors()) == []
    assert torch.equal(model.encode(waves, ["a"] * 3, 0.0).states, before.states)
