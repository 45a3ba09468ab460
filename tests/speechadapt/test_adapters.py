"""Bottleneck adapters: identity at insertion, mixed = single, threads, gradients."""

import dataclasses
import threading

import pytest
import torch
import torch.nn.functional as F

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.average import average
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import PRESETS, config_from_dict, family_of, preset
from speechadapt.backbones.base import Site
from speechadapt.call import running
from speechadapt.errors import ConfigError, RouteError
from speechadapt_kernels.bottleneck import BottleneckWeights, bottleneck

TOKENS = torch.tensor([[41, 42, 44, 46, 5, 6]])


def add(model, name, config, seed=0, random_up=True):
    """Put an adapter into the bank; ``random_up`` gives it an effect."""
    adapter = Adapter.fresh(
        name, config, family_of(config), model.backbone.sites.values(), AdapterInfo(), seed
    )
    model.bank.add(adapter)
    if random_up:
        generator = torch.Generator().manual_seed(seed + 100)
        for key, tensor in adapter.named_tensors():
            if "/up" in key or "/norm" in key:
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.data.add_(0.3 * noise)
    return adapter


def logits(model, waves, routes, trailing_silence=0.3):
    encoded = model.encode(waves, routes, trailing_silence)
    with torch.inference_mode(), running(model.call(routes, encoded)):
        states = model.backbone.decoder_states(TOKENS.repeat(len(waves), 1), encoded)
        return model.backbone.logits(states)


def reference(x, base, w, activation, scale):
    """The formula of the docstring, written out in float64."""
    x = x.double()
    if w.norm_weight is not None:
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + 1e-5) * w.norm_weight.double() + w.norm_bias.double()
    hidden = x @ w.down.double().T + w.down_bias.double()
    hidden = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[activation](hidden)
    return base.double() + scale * (hidden @ w.up.double().T + w.up_bias.double())


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_operator_against_float64(activation, norm, count):
    torch.manual_seed(0)
    rows, frames, dim, width = 2, 7, 16, 4
    stacked = BottleneckWeights(
        torch.randn(count, width, dim),
        torch.randn(count, width),
        torch.randn(count, dim, width),
        torch.randn(count, dim),
        torch.randn(count, dim) if norm else None,
        torch.randn(count, dim) if norm else None,
    )
    source, base = torch.randn(2, count, rows, frames, dim)
    result = bottleneck(source, base, stacked, activation, 0.5)
    for index in range(count):
        one = BottleneckWeights(*(None if t is None else t[index] for t in vars(stacked).values()))
        expected = reference(source[index], base[index], one, activation, 0.5)
        torch.testing.assert_close(result[index].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["houlsby", "pfeiffer", "parallel"])
def test_hooks_compute_what_a_rewritten_layer_would(model, waves, name):
    """The same layer written out by hand, residuals and all."""
    config = dataclasses.replace(preset(name), stacks=("encoder",), bottleneck=8)
    adapter = add(model, "a", config)
    mel = model.backbone.features(waves[:1], 0.3)
    encoder = model.backbone.model.model.encoder

    def delta(site, x):
        t = adapter.tensors[site]
        x = F.layer_norm(x, x.shape[-1:], t["norm.weight"], t["norm.bias"])
        h = F.gelu(F.linear(x, t["down.weight"], t["down.bias"]))
        return F.linear(h, t["up.weight"], t["up.bias"])

    with torch.inference_mode():
        h = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel.values.double())))).permute(0, 2, 1)
        h = h + encoder.embed_positions.weight[: h.shape[1]]
        for i, layer in enumerate(encoder.layers):
            attended = layer.self_attn(layer.self_attn_layer_norm(h))[0]
            if f"encoder.{i}.attn.out" in adapter.tensors:
                attended = attended + delta(f"encoder.{i}.attn.out", attended)
            h = h + attended
            normed = layer.final_layer_norm(h)
            fed = layer.fc2(F.gelu(layer.fc1(normed)))
            if f"encoder.{i}.ffn.out" in adapter.tensors:
                source = normed if config.placement == "parallel" else fed
                fed = fed + delta(f"encoder.{i}.ffn.out", source)
            h = h + fed
            if f"encoder.{i}.out" in adapter.tensors:
                h = h + delta(f"encoder.{i}.out", h)
        expected = encoder.layer_norm(h)
    ours = model.encode(waves[:1], ["a"], 0.3).states
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_every_utterance_of_a_batch_with_its_own_adapter(model, waves):
    add(model, "be", preset("houlsby"), 1)
    add(model, "ro", preset("houlsby"), 2)
    add(model, "el", preset("pfeiffer"), 3)
    add(model, "wide", dataclasses.replace(preset("pfeiffer"), bottleneck=96), 4)
    batch = [*waves, waves[0], waves[0]]
    routes = ["ro", None, "be", "el", "wide"]
    together = logits(model, batch, routes)
    for row, (wave, route) in enumerate(zip(batch, routes, strict=True)):
        alone = logits(model, [wave], [route])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together[3], together[4])


def test_beams_expand_the_route(model, waves):
    add(model, "be", preset("houlsby"), 1)
    routes = ["be", None, "be"]
    encoded = model.encode(waves, routes, 0.3)
    with torch.inference_mode(), running(model.call(routes, encoded)):
        wide = type(encoded)(encoded.states.repeat_interleave(2, 0), encoded.lengths)
        states = model.backbone.decoder_states(TOKENS.repeat(6, 1), wide)
        narrow = model.backbone.decoder_states(TOKENS.repeat(3, 1), encoded)
    torch.testing.assert_close(states[::2], narrow, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states[1::2], narrow, rtol=1e-9, atol=1e-9)


def test_threads_do_not_see_each_other(model, waves):
    for seed, name in enumerate(("be", "ro", "el")):
        add(model, name, preset("houlsby"), seed)
    routes = ["be", "ro", "el", None]
    expected = {route: logits(model, waves[:1], [route]) for route in routes}
    wrong = []

    def work(route):
        for _ in range(8):
            if not torch.equal(logits(model, waves[:1], [route]), expected[route]):
                wrong.append(route)

    threads = [threading.Thread(target=work, args=(route,)) for route in routes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_running_call_keeps_a_replaced_adapter(model, waves):
    old = add(model, "be", preset("pfeiffer"), 1)
    call = model.bank.call(["be"])
    new = add(model, "be", preset("pfeiffer"), 2)
    assert call.adapters == (old,)
    assert model.bank.call(["be"]).adapters == (new,)


def test_detach_gives_the_plain_model_back(model, waves):
    before = logits(model, waves, [None] * 3)
    add(model, "be", preset("houlsby"))
    model.bank.detach()
    assert not any(m._forward_hooks for m in model.backbone.model.modules())
    assert torch.equal(logits(model, waves, [None] * 3), before)


def test_gradients_reach_the_adapter_and_nothing_else(model, waves):
    adapter = add(model, "be", preset("houlsby")).train()
    mel = model.backbone.features(waves[:1], 0.3)
    with running(model.bank.call(["be"])):
        model.backbone.encode(mel).states.sum().backward()
    touched = {key for key, t in adapter.named_tensors() if t.grad is not None}
    assert touched == {key for key, _ in adapter.named_tensors() if key.startswith("encoder")}
    assert all(p.grad is None for p in model.backbone.model.parameters())


@pytest.mark.parametrize(
    ("name", "sites", "per_site"), [("houlsby", 24, 42_536), ("pfeiffer", 12, 67_136)]
)
def test_parameter_count_on_whisper_base(name, sites, per_site):
    """Formula of the docstring at the real width; both stay under 1.5 % of 72.6 M."""
    config = preset(name)
    site = Site("encoder.0.out", torch.nn.Linear(2048, 512), 512, 2048)
    tensors = family_of(config).init(config, site, torch.Generator())
    count = sum(tensor.numel() for tensor in tensors.values())
    assert count == 2 * 512 * config.bottleneck + config.bottleneck + 3 * 512 == per_site
    assert sites * per_site < 0.015 * 72_593_920


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bottleneck": 0}, "bottleneck"),
        ({"activation": "tanh"}, "activation"),
        ({"placement": "beside"}, "placement"),
        ({"dropout": 1.0}, "dropout"),
        ({"scale": float("nan")}, "scale"),
        ({"points": ()}, "points"),
        ({"top_layers": 0}, "top_layers"),
    ],
)
def test_config_refuses(changes, word):
    with pytest.raises(ConfigError, match=word):
        BottleneckConfig(**changes)


def test_config_survives_json():
    for config in PRESETS.values():
        assert config_from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="method"):
        config_from_dict({"method": "compacter"})
    with pytest.raises(ConfigError, match="width"):
        config_from_dict({"method": "bottleneck", "width": 3})


def test_top_layers_and_unknown_points(model):
    sites = model.backbone.sites.values()
    top = dataclasses.replace(preset("pfeiffer"), top_layers=1).select(sites)
    assert [site.name for site in top] == ["encoder.1.out", "decoder.1.out"]
    with pytest.raises(ConfigError, match=r"attn\.x"):
        dataclasses.replace(preset("pfeiffer"), points=("attn.x",)).select(sites)


def test_a_pattern_takes_what_there_is_and_the_family_can_serve(model):
    """Cross-attention where a stack has it; a place asked for by name is refused aloud."""
    points = {stack: {"attn.k", "attn.v", "ffn.out"} for stack in ("encoder", "decoder")}
    points["decoder"] |= {"cross.k", "cross.v"}
    sites = model.backbone.sites
    for site in preset("ia3").select(sites.values()):
        points[site.stack].discard(site.point)
    assert points == {"encoder": set(), "decoder": set()}
    config = dataclasses.replace(preset("lora"), points=("attn.*",))  # not the norm, not the kv
    lora = add(model, "a", config, random_up=False)
    assert {sites[name].point for name in lora.tensors} == {
        f"attn.{part}" for part in ("q", "k", "v", "out")
    }
    with pytest.raises(ConfigError, match=r"encoder.0.attn.norm: it changes a linear layer"):
        add(model, "a", dataclasses.replace(config, points=("attn.*", "attn.norm")))
    with pytest.raises(ConfigError, match=r"points has \*\.x"):
        add(model, "a", dataclasses.replace(config, points=("attn.q", "*.x")))


def test_unknown_routes_and_names_are_refused(model):
    add(model, "be", preset("pfeiffer"))
    with pytest.raises(RouteError, match="'ro' is loaded; loaded: be"):
        model.bank.call(["be", "ro"])
    config = preset("pfeiffer")
    for name in ("a+b", "none", "", "a b", "avg(be)"):
        with pytest.raises(RouteError, match="cannot be used"):
            add(model, name, config)


@pytest.mark.parametrize("routes", [[], ["a"], ["a", None], ["a"] * 4, ["a"] * 6])
def test_more_or_fewer_routes_than_utterances_are_refused(model, waves, routes):
    """PEFT stretches them: a forgotten route would be somebody else's."""
    add(model, "a", BottleneckConfig(bottleneck=4))
    with pytest.raises(RouteError, match=f"{len(routes)} routes for 3 utterances"):
        model.encode(waves, routes, 0.3)
    with pytest.raises(RouteError, match=f"{len(routes)} routes for 3 utterances"):
        model.call(routes, model.encode(waves, [None] * 3, 0.3))


def test_average_is_the_mean_in_float64(model):
    config = BottleneckConfig(bottleneck=4)
    adapters = [add(model, f"run{seed}", config, seed) for seed in range(3)]
    adapters[1].info.trailing_silence, adapters[1].info.language = 3.0, "ro"
    result = average("mean", adapters)
    values = [dict(adapter.named_tensors()) for adapter in adapters]
    for key, tensor in result.named_tensors():
        mean = sum(each[key].double() for each in values) / 3
        torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=1e-6)
    assert result.info.trailing_silence == 3.0 and result.info.language is None
    single = average("single", adapters[:1])
    assert all(
        torch.equal(tensor, values[0][key]) and tensor is not values[0][key]
        for key, tensor in single.named_tensors()
    )


def test_average_refuses_another_configuration(model):
    narrow, wide = (add(model, f"w{n}", BottleneckConfig(bottleneck=n)) for n in (4, 8))
    with pytest.raises(ConfigError, match="bottleneck is 4 in adapter 'w4', 8 in 'w8'"):
        average("both", [narrow, wide])
