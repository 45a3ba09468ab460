"""What a pass with adapters asks of a device: nothing is copied to it a second time.

Tensors on ``meta`` are on another device than the processor's, and nothing there can be read.
"""

import gc
import weakref

import pytest
import torch
from adapting import add
from conftest import tiny_whisper
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.conv import ConformerConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.features import Features
from speechadapt.model import SpeechModel

META = torch.device("meta")
TENSOR = torch.tensor
ROUTES = {"mixed": ["a", None, "b"], "single": ["a", "a", "a"]}


class Log(TorchDispatchMode):
    """Names of the operators that ran, and how often something was brought to the device."""

    def __init__(self):
        super().__init__()
        self.names, self.copies = [], 0

    def from_numbers(self, *args, **kwargs):
        """``torch.tensor``, which no operator stands for."""
        self.copies += 1
        return TENSOR(*args, **kwargs)

    def __torch_dispatch__(self, operator, _types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in operator._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.names.append(str(operator))  # a view launches nothing
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, torch.Tensor)]
        self.copies += len({tensor.device for tensor in tensors}) > 1
        return made


def on_meta(layers, config):
    """A Whisper of so many layers there, with two adapters."""
    model = SpeechModel(WhisperBackbone(tiny_whisper(torch.float32, encoder_layers=layers)))
    for name in "ab":
        adapter = add(model, name, config)
        for tensors in adapter.tensors.values():
            tensors.update({key: tensor.to(META) for key, tensor in tensors.items()})
    model.backbone.model.to(META)
    return model


def passes(monkeypatch, layers, config, routes, lengths):
    """What a first pass of a call asked for, and a second one."""
    model = on_meta(layers, config)
    bins = model.backbone.model.config.num_mel_bins
    mel = Features(torch.empty(3, bins, 40, device=META), torch.tensor([40, 30, 40]))
    call, logs = model.bank.call(routes, lengths), []
    for _ in range(2):
        with torch.inference_mode(), running(call), Log() as log:
            monkeypatch.setattr(torch, "tensor", log.from_numbers)
            model.backbone.encode(mel)
        logs.append(log)
    return logs


@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("lengths", [None, torch.tensor([20, 15, 20])], ids=["full", "padded"])
@pytest.mark.parametrize("path", ["triton", "torch"])
@pytest.mark.parametrize("config", [BottleneckConfig(), ConformerConfig()], ids=lambda c: c.method)
def test_a_second_pass_copies_nothing(monkeypatch, config, path, lengths, routes):
    """And a first one as often however many layers there are."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("SPEECHADAPT_KERNELS", path)
    found = []
    for layers in (2, 4):
        first, second = passes(monkeypatch, layers, config, routes, lengths)
        assert second.copies == 0
        found.append(first.copies)
    assert found[0] == found[1] <= 5


@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("config", [BottleneckConfig(), LoraConfig()], ids=lambda c: c.method)
def test_weights_of_all_layers_are_folded_at_once(monkeypatch, config, routes):
    """A first pass of a call runs as many operators more than a second one with any depth."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    more = []
    for layers in (2, 4):
        first, second = passes(monkeypatch, layers, config, routes, None)
        assert any("speechadapt" in name for name in second.names)
        more.append(len(first.names) - len(second.names))
    assert more[0] == more[1] < 50


@pytest.mark.parametrize("path", ["triton", "torch"])
def test_stacked_weights_go_with_their_call(monkeypatch, waves, path):
    """At once, not when Python looks for cycles next."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", path)
    model = SpeechModel(WhisperBackbone(tiny_whisper(torch.float32)))
    for name in "ab":
        add(model, name, BottleneckConfig())
    mel = model.backbone.features(waves, 0.0)
    call = model.bank.call(["a", "b", None], model.backbone.key_lengths(mel))
    gc.disable()
    try:
        with torch.inference_mode(), running(call):
            model.backbone.encode(mel)
        gone = weakref.ref(call)
        del call
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("routes", ROUTES.values(), ids=ROUTES)
def test_one_operator_for_each_site(monkeypatch, routes):
    """A pass with adapters runs the operators of the frozen base and one more in each layer."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    config = BottleneckConfig(points=("out",), stacks=("encoder",))
    _, adapted = passes(monkeypatch, 4, config, routes, None)
    _, frozen = passes(monkeypatch, 4, config, [None] * 3, None)
    more = [name for name in adapted.names if "speechadapt" in name]
    assert more == ["speechadapt.bottleneck.default"] * 4
    assert len(adapted.names) == len(frozen.names) + len(more)
