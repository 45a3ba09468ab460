"""What holds for every adapter family: the contract, over all presets and variants."""

import dataclasses
import threading
from unittest.mock import patch

import pytest
import torch
from adapting import add
from conftest import tiny_whisper

from speechadapt import steps
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bias import BitFitConfig
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.conv import ConformerConfig, ConvPassConfig
from speechadapt.adapters.family import SiteBatch
from speechadapt.adapters.gated import GatedConfig
from speechadapt.adapters.hydra import HydraConfig
from speechadapt.adapters.invertible import Invertible, InvertibleConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.mixture import MixtureConfig
from speechadapt.adapters.prefix import PrefixConfig
from speechadapt.adapters.registry import FAMILIES, PRESETS, config_from_dict, family_of
from speechadapt.adapters.sparse import SparseConfig
from speechadapt.backbones.base import Site
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import current, running
from speechadapt.lowbit import BITS
from speechadapt.model import SpeechModel
from speechadapt.route import Stack
from speechadapt.store import load_adapter, save_adapter

TOKENS = torch.tensor([[41, 42, 44, 46, 5, 6]])

# MMS's stand where Whisper has nothing: test_mms.py
WHISPERS = {name: config for name, config in PRESETS.items() if name != "mms"}
CONFIGS = {
    **WHISPERS,
    "parallel_residual": BottleneckConfig(
        bottleneck=8, points=("attn.out", "ffn.out"), placement="parallel_residual"
    ),
    "bottleneck_plain": BottleneckConfig(bottleneck=8, layer_norm=False, activation="relu"),
    "lora_all_linear": LoraConfig(
        rank=4, points=("attn.q", "attn.k", "attn.v", "attn.out", "ffn.in", "ffn.out")
    ),
    "lora_rank_stabilized": LoraConfig(rank=4, rank_stabilized=True, dropout=0.1),
    "pissa": LoraConfig(rank=4, start="pissa"),
    "convpass_causal": ConvPassConfig(bottleneck=6, kernel=4, causal=True),
    "convpass_sequential": ConvPassConfig(bottleneck=6, placement="sequential", points=("out",)),
    "conformer_causal_layer": ConformerConfig(kernel=8, causal=True, norm="layer", dropout=0.1),
    "gated_hard": GatedConfig(bottleneck=8, hard=True, budget_weight=1.0),
    "prefix_both": PrefixConfig(length=3, points=("attn.kv", "cross.kv")),
    "prompt_cross": PrefixConfig(length=3, learns="states", points=("attn.kv", "cross.kv")),
    "soft_moa_slots": MixtureConfig(
        routing="soft", slots=2, stacks=("encoder",), placement="sequential"
    ),
    "sparse_parallel": SparseConfig(
        bottleneck=8, density=0.3, points=("ffn.out",), placement="parallel", dropout=0.1
    ),
}
CHANGING = [name for name, config in CONFIGS.items() if config.method != "head"]


def encoder_states(model, waves, routes):
    return model.encode(waves, routes, 0.3)


def logits(model, waves, routes):
    encoded = encoder_states(model, waves, routes)
    with torch.inference_mode(), running(model.call(routes, encoded)):
        states = model.backbone.decoder_states(TOKENS.repeat(len(waves), 1), encoded)
        return model.backbone.logits(states)


def test_every_family_is_among_the_configs():
    assert {config.method for config in CONFIGS.values()} == set(FAMILIES) - {"mms"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_adapter_changes_no_output_bit(model, waves, name):
    before = logits(model, waves, [None] * 3)
    fresh = add(model, "fresh", CONFIGS[name], effect=False)
    assert torch.equal(logits(model, waves, ["fresh"] * 3), before)
    assert torch.equal(logits(model, waves, ["fresh", None, None]), before)
    for fresh.bits in BITS:  # trained to be stored so: what is zero stays zero
        assert torch.equal(logits(model, waves, ["fresh"] * 3), before)


@pytest.mark.parametrize("name", CHANGING)
def test_mixed_is_single(model, waves, name):
    """Each row gets what it gets alone, next to other adapters of its kind, another kind, none."""
    config = CONFIGS[name]
    for seed in (1, 2):
        add(model, f"a{seed}", config, seed)
    narrow = config
    if config.width:
        narrow = dataclasses.replace(config, **{config.width: 3})
        if isinstance(config, LoraConfig):  # the same scale at another rank
            alpha = 3 * config.scale if not config.rank_stabilized else 3**0.5 * config.scale
            narrow = dataclasses.replace(narrow, alpha=alpha)
    add(model, "narrow", narrow, 3)
    add(model, "other", BottleneckConfig(bottleneck=5), 4)
    batch = [waves[0], waves[1], waves[2], waves[0], waves[1], waves[2], waves[0]]
    routes = ["a1", "a2", None, "narrow", "other", "a1", Stack("a2", "other")]
    together = logits(model, batch, routes)
    plain = logits(model, batch, [None] * len(batch))
    for row, (wave, route) in enumerate(zip(batch, routes, strict=True)):
        alone = logits(model, [wave], [route])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-9, atol=1e-9)
        assert (route is None) == torch.allclose(together[row], plain[row], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [None, 1])
@pytest.mark.parametrize("name", CHANGING)
def test_gradients_reach_every_parameter(model, waves, name, bits):
    """No part is dead: behind what starts at zero, everything moves within three steps."""
    adapter = add(model, "a", CONFIGS[name], effect=False).train()
    adapter.bits = bits
    parameters = dict(adapter.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), 0.1)
    mel = model.backbone.features(waves, 0.3)
    for _ in range(3):
        optimizer.zero_grad()
        call = model.bank.call(["a"] * 3, mel.lengths // 2)
        with running(call):
            encoded = model.backbone.encode(mel)
            states = model.backbone.decoder_states(TOKENS.repeat(3, 1), encoded)
            loss = model.backbone.logits(states).square().mean() + sum(call.penalties)
        loss.backward()
        optimizer.step()
    dead = [key for key, p in parameters.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert all(p.grad is None for p in model.backbone.model.parameters())
    for key, tensor in adapter.named_tensors():
        if key not in parameters:
            assert tensor.grad is None


def trained_beside(model, waves, routes, tokens, lengths, name):
    """Gradients and buffers of an adapter after a training pass over its own rows of a batch."""
    kept = [row for row, route in enumerate(routes) if route == name]
    mel = model.backbone.features(waves, 0.3)
    call = model.bank.call(routes, model.backbone.key_lengths(mel))
    call.token_lengths = torch.tensor(lengths)
    with running(call):
        states = model.backbone.decoder_states(tokens, model.backbone.encode(mel))
    loss = sum(states[row, : lengths[row]].square().sum() for row in kept) + sum(call.penalties)
    loss.backward()
    adapter = model.bank[name]
    learnt = {key: p.grad.clone() for key, p in adapter.named_parameters()}
    return learnt | {key: t.clone() for key, t in adapter.named_tensors() if key not in learnt}


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("name", CHANGING)
def test_trained_in_a_mixed_batch_is_trained_alone(model, waves, name, apart, monkeypatch):
    """Neither statistics nor penalties see other adapters' rows, or rows that fill up a share."""
    monkeypatch.setattr(steps, "runs_apart", lambda rows: apart)
    fields = {field.name for field in dataclasses.fields(CONFIGS[name])}
    still = {key: 0.0 for key in ("dropout", "gate_noise") if key in fields}
    if "budget_weight" in fields:
        still |= {"budget_weight": 1.0, "budget": 0.3}
    config = dataclasses.replace(CONFIGS[name], **still)
    tokens = TOKENS.repeat(5, 1)
    found = []
    for rows in ([0, 1, 2, 3, 4], [3, 4]):
        for seed, adapter in enumerate(("a", "b")):
            add(model, adapter, config, seed).train()
        routes = [["a", "a", "a", "b", "b"][row] for row in rows]
        sounds = [[*waves, *waves[:2]][row] for row in rows]
        lengths = [[6, 5, 6, 3, 5][row] for row in rows]
        found.append(trained_beside(model, sounds, routes, tokens[: len(rows)], lengths, "b"))
    mixed, alone = found
    for key, value in alone.items():
        torch.testing.assert_close(mixed[key], value, rtol=1e-8, atol=1e-8, msg=key)


@pytest.mark.parametrize("placement", ["parallel", "parallel_residual"])
def test_the_order_of_loading_changes_nothing(waves, placement):
    """One adapter changes the normalisation that opens the sub-layer another one reads."""
    configs = {
        "norm": BitFitConfig(points=("ffn.norm",)),
        "beside": BottleneckConfig(bottleneck=8, points=("ffn.out",), placement=placement),
    }
    found = []
    for order in (("norm", "beside"), ("beside", "norm")):
        model = SpeechModel(WhisperBackbone(tiny_whisper()))
        for name in order:
            add(model, name, configs[name], seed=len(name))
        found.append(logits(model, waves, [Stack("norm", "beside")] * 3))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_and_loaded_it_is_the_same(model, waves, name, tmp_path):
    adapter = add(model, "a", CONFIGS[name], 1)
    adapter.info.fingerprint = model.backbone.fingerprint
    expected = logits(model, waves, ["a"] * 3)
    save_adapter(adapter, tmp_path / "a", torch.float64)
    loaded = load_adapter(tmp_path / "a", model.backbone)
    assert loaded.config == adapter.config
    assert loaded.parameter_count == adapter.parameter_count
    for (key, tensor), (other, value) in zip(
        adapter.named_tensors(), loaded.named_tensors(), strict=True
    ):
        assert key == other and torch.equal(tensor, value)
    model.bank.add(loaded)  # mapped from the file, its tensors may be aligned otherwise
    torch.testing.assert_close(logits(model, waves, ["a"] * 3), expected, rtol=1e-12, atol=1e-12)
    assert config_from_dict(adapter.config.to_dict()) == adapter.config


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_read_from_disk_is_not_made_first(model, name):
    """A blank adapter is a fresh one but for its values, and takes no decomposition to make."""
    sites, family = model.backbone.sites.values(), family_of(CONFIGS[name])
    with patch.object(torch.linalg, "svd", side_effect=AssertionError):
        blank = Adapter.blank("a", CONFIGS[name], family, sites, AdapterInfo())
    fresh = Adapter.fresh("a", CONFIGS[name], family, sites, AdapterInfo())
    assert blank.config == fresh.config
    for (key, tensor), (other, value) in zip(
        blank.named_tensors(), fresh.named_tensors(), strict=True
    ):
        assert key == other and tensor.is_meta
        assert (tensor.shape, tensor.dtype) == (value.shape, value.dtype)


def test_a_batch_of_every_family_trains_them_all(model, waves):
    """Mixed in one batch in training: each adapter gets the gradient it gets alone."""
    names = [name for name in WHISPERS if name in CHANGING]
    for seed, name in enumerate(names):
        add(model, name, PRESETS[name], seed).train()
    for adapter in model.bank:  # drawn noise would differ between the passes
        adapter.training = False
    batch = [waves[i % 3] for i in range(len(names))]

    def gradients(routes, waves):
        for adapter in model.bank:
            for _, tensor in adapter.named_parameters():
                tensor.grad = None
        mel = model.backbone.features(waves, 0.3)
        with running(model.bank.call(routes, mel.lengths // 2)):
            model.backbone.encode(mel).states[:, :20].square().sum().backward()
        return {
            (route, key): tensor.grad.clone()
            for route in routes
            for key, tensor in model.bank[route].named_parameters()
            if tensor.grad is not None
        }

    together = gradients(names, batch)
    for name, wave in zip(names, batch, strict=True):
        for key, gradient in gradients([name], [wave]).items():
            torch.testing.assert_close(together[key], gradient, rtol=1e-8, atol=1e-8)


def test_a_stack_applies_its_adapters_in_order(model, waves):
    config = BottleneckConfig(bottleneck=8, points=("ffn.out",), stacks=("encoder",), top_layers=1)
    first, second = add(model, "be", config, 1), add(model, "babble", config, 2)
    seen = []
    leaf = model.backbone.sites["encoder.1.ffn.out"].leaf
    handle = leaf.register_forward_hook(lambda _m, _i, output: seen.append(output))
    encoder_states(model, waves[:1], [Stack("be", "babble")])
    handle.remove()

    def alone(adapter, x):
        weights = {k: t[None] for k, t in adapter.tensors["encoder.1.ffn.out"].items()}
        norm = torch.nn.functional.layer_norm(
            x, x.shape[-1:], weights["norm.weight"][0], weights["norm.bias"][0]
        )
        hidden = norm @ weights["down.weight"][0].T + weights["down.bias"][0]
        hidden = torch.nn.functional.gelu(hidden)
        return x + hidden @ weights["up.weight"][0].T + weights["up.bias"][0]

    before = []
    model.bank.detach()
    handle = leaf.register_forward_hook(lambda _m, _i, output: before.append(output))
    encoder_states(model, waves[:1], [None])
    handle.remove()
    torch.testing.assert_close(seen[0], alone(second, alone(first, before[0])))


def test_threads_with_different_routes_get_what_each_gets_alone(model, waves):
    """Ten threads and a thousand calls, while an eleventh loads, replaces and removes adapters."""
    names = list(PRESETS)[:9]
    for seed, name in enumerate(names):
        add(model, name, PRESETS[name], seed)
    routes = [*names, None]
    expected = {route: encoder_states(model, waves[1:2], [route]).states for route in routes}
    wrong, done = [], threading.Event()

    def work(route):
        for _ in range(100):
            got = encoder_states(model, waves[1:2], [route]).states
            if not torch.equal(got, expected[route]):
                wrong.append(route)

    def churn():
        seed = 0
        while not done.is_set():
            seed += 1
            add(model, "guest", CONFIGS["bitfit"], seed)
            model.bank.remove("guest")

    threads = [threading.Thread(target=work, args=(route,)) for route in routes]
    guest = threading.Thread(target=churn)
    for thread in [*threads, guest]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    guest.join()
    assert wrong == []


def test_an_exception_in_a_mixed_call_leaves_nothing_behind(model, waves):
    """Whatever the adapters of the first layer kept for later, the next call starts anew."""
    names = list(WHISPERS)
    for seed, name in enumerate(names):
        add(model, name, PRESETS[name], seed)
    routes = [*names, None]
    batch = [waves[i % 3] for i in range(len(routes))]
    before = logits(model, batch, routes)

    def fail(*_):
        raise ZeroDivisionError

    for path in ("encoder.layers.0.fc1", "encoder.layers.1.self_attn.q_proj", "decoder.layers.0"):
        handle = model.backbone.model.model.get_submodule(path).register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            logits(model, batch, routes)
        handle.remove()
        assert current() is None
        assert torch.equal(logits(model, batch, routes), before)


def test_batch_norm_statistics_leave_padding_out(model, waves):
    """Trained on a padded batch or on the same frames without padding: the same statistics."""
    statistics = []
    for length, batch in ((None, waves[:1] * 2), (0, [waves[0], waves[0], waves[2]])):
        config = ConformerConfig(bottleneck=4, kernel=1, top_layers=1)
        adapter = add(model, "a", config).train()
        add(model, "b", config)
        mel = model.backbone.features(batch, 0.3)
        routes = ["a", "a", "b"][: len(batch)]
        lengths = None if length is None else mel.lengths // 2
        with running(model.bank.call(routes, lengths)):
            model.backbone.encode(mel)
        tensors = adapter.tensors["encoder.1.ffn.out"]
        statistics.append({k: tensors[k].clone() for k in ("inner_norm.mean", "inner_norm.var")})
    for key, value in statistics[0].items():
        assert not torch.allclose(value, torch.full_like(value, float("var" in key)))
        torch.testing.assert_close(value, statistics[1][key], rtol=1e-9, atol=1e-9)


def test_a_causal_convolution_sees_no_later_frame(model, waves):
    """Frames up to a point stay bit-equal when what follows is changed."""
    config = ConvPassConfig(bottleneck=4, kernel=3, causal=True)
    x = torch.randn(1, 1, 12, 64, dtype=torch.float64)
    site = model.backbone.sites["encoder.0.ffn.out"]
    family = family_of(config)
    weights = {
        k: torch.randn(1, *t.shape, dtype=torch.float64)
        for k, t in family.init(config, site, torch.Generator()).items()
    }

    def run(x, causal):
        batch = make_batch(x)
        return family.apply(dataclasses.replace(config, causal=causal), weights, batch)

    changed = x.clone()
    changed[:, :, 7:] += 1.0
    assert torch.equal(run(x, True)[:, :, :7], run(changed, True)[:, :, :7])
    assert not torch.equal(run(x, False)[:, :, :7], run(changed, False)[:, :, :7])


def make_batch(x):
    return SiteBatch(x, x, False, None, None, lambda name, values: None, [])


def test_the_invertible_adapter_is_invertible(model):
    config, family = InvertibleConfig(bottleneck=8), Invertible()
    site = model.backbone.sites["encoder.embed"]
    torch.manual_seed(0)
    weights = {
        k: torch.randn(2, *t.shape) for k, t in family.init(config, site, torch.Generator()).items()
    }
    weights = {k: 0.2 * t for k, t in weights.items()}
    x = torch.randn(2, 3, 5, 64)
    y = family.apply(config, weights, make_batch(x))
    assert not torch.allclose(x, y, atol=0.1)
    torch.testing.assert_close(family.invert(config, weights, y), x, rtol=1e-6, atol=1e-5)


def test_hydra_and_lora_are_what_merged_weights_give(model):
    """The formulas of the docstrings against one dense layer, biases included."""
    torch.manual_seed(0)
    leaf = torch.nn.Linear(6, 4).double()
    x = torch.randn(1, 2, 3, 6, dtype=torch.float64)
    y = leaf(x)
    for config in (LoraConfig(rank=2, alpha=3.0), HydraConfig(rank=2, scale=0.7)):
        family = family_of(config)
        site = Site("encoder.0.ffn.in", leaf, 4, 6)
        weights = {
            k: torch.randn(1, *t.shape, dtype=torch.float64)
            for k, t in family.init(config, site, torch.Generator()).items()
        }
        batch = dataclasses.replace(make_batch(y), source=x)
        got = family.apply(config, weights, batch)
        w = {k: t[0] for k, t in weights.items()}
        if isinstance(config, LoraConfig):
            weight = leaf.weight + 1.5 * w["up.weight"] @ w["down.weight"]
            bias = leaf.bias
        else:
            behind = 0.7 * w["sequential.up.weight"] @ w["sequential.down.weight"]
            beside = 0.7 * w["parallel.up.weight"] @ w["parallel.down.weight"]
            weight = leaf.weight + beside + behind @ leaf.weight
            bias = leaf.bias + behind @ leaf.bias
        torch.testing.assert_close(got, x @ weight.T + bias)


@pytest.mark.parametrize("hard", [True, False])
def test_the_gate_switches_frames(model, hard):
    config = GatedConfig(bottleneck=2, hard=hard, gate_width=3)
    family = family_of(config)
    site = model.backbone.sites["encoder.0.ffn.out"]
    torch.manual_seed(0)
    weights = {
        k: torch.randn(1, *t.shape) for k, t in family.init(config, site, torch.Generator()).items()
    }
    x = torch.randn(1, 1, 40, 64)
    delta = family.apply(config, weights, make_batch(x)) - x
    still = (delta == 0).all(-1).float().mean()
    assert (0.1 < still < 0.9) if hard else still == 0
