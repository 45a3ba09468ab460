"""Sparse adapters: which weights exist, what they compute, how they are stored."""

import dataclasses

import pytest
import safetensors.torch
import torch
from adapting import add
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoding import write_base

import speechadapt
from speechadapt.adapters.average import average
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.adapters.sparse import SparseConfig, keep, pack_mask, unpack_mask
from speechadapt.call import running
from speechadapt.cli.main import main
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.lowbit import BITS
from speechadapt.store import load_adapter, save_adapter

CONFIG = SparseConfig(bottleneck=6, density=0.25)


def dense_of(adapter):
    """The bottleneck with the same weights and zeros in the gaps, by site."""
    return {site: adapter.weights(site, torch.device("cpu")) for site in adapter.tensors}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.booleans(), max_size=70))
def test_masks_come_back(bits):
    chosen = torch.tensor(bits, dtype=torch.bool)
    mask = pack_mask(chosen)
    assert mask.dtype == torch.uint8 and len(mask) == -(-len(bits) // 8)
    assert torch.equal(unpack_mask(mask, len(bits)), chosen)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    density=st.floats(1e-6, 1.0),
    distinct=st.integers(1, 200),
    seed=st.integers(0, 1000),
)
def test_the_kept_fraction_is_exact(rows, columns, density, distinct, seed):
    """Also where many scores are equal; and what is kept scores no less than what is not."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    score = torch.randint(distinct, (rows, columns), generator=generator).float()
    kept = keep("up", weight, score, density)
    chosen = unpack_mask(kept["up.mask"], weight.numel()).view(rows, columns)
    assert chosen.sum() == kept["up.values"].numel() == max(1, round(density * rows * columns))
    assert torch.equal(kept["up.values"][0], weight[chosen])
    assert chosen.all() or score[chosen].min() >= score[~chosen].max()


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
def test_every_projection_keeps_the_same_fraction(model, density):
    adapter = add(model, "a", dataclasses.replace(CONFIG, density=density))
    for weights in dense_of(adapter).values():
        for part, shape in (("down", (6, 64)), ("up", (64, 6))):
            weight = weights[f"{part}.weight"]
            assert weight.shape == shape
            assert weight.count_nonzero() == max(1, round(density * 64 * 6))
    sites, each = len(adapter.tensors), 2 * max(1, round(density * 384)) + 6 + 64 + 2 * 64
    assert adapter.parameter_count == sites * each


def test_with_all_weights_it_is_a_bottleneck(model, waves):
    adapter = add(model, "all", dataclasses.replace(CONFIG, density=1.0), 1)
    plain = add(model, "plain", BottleneckConfig(bottleneck=6), 1)
    for site, weights in dense_of(adapter).items():
        for key, tensor in plain.tensors[site].items():
            tensor.data.copy_(weights[key])
    states = [model.encode(waves, [name] * 3, 0.3).states for name in ("all", "plain")]
    assert torch.equal(*states)


def test_magnitude_keeps_the_largest(model):
    config = dataclasses.replace(CONFIG, score="magnitude")
    family, site = family_of(config), model.backbone.sites["encoder.0.out"]
    whole = family_of(config.dense).init(config.dense, site, torch.Generator().manual_seed(5))
    kept = family.init(config, site, torch.Generator().manual_seed(5))
    down = whole["down.weight"].abs()
    chosen = unpack_mask(kept["down.mask"], down.numel()).view(down.shape)
    assert down[chosen].min() > down[~chosen].max()
    # Nothing is known of an up projection of zeros: the lot decides, all over it.
    assert unpack_mask(kept["up.mask"], down.numel()).view(64, 6).any(0).all()


def test_densities_widths_and_plain_bottlenecks_share_one_operator(model, waves):
    """One step at a site for all of them, and each row gets what it gets alone."""
    configs = {
        "a": CONFIG,
        "b": dataclasses.replace(CONFIG, bottleneck=9, density=0.6, score="random"),
        "c": BottleneckConfig(bottleneck=4),
    }
    for seed, (name, config) in enumerate(configs.items()):
        add(model, name, config, seed)
    mel = model.backbone.features(waves, 0.3)
    call = model.bank.call(list(configs), model.backbone.key_lengths(mel))
    with running(call):
        together = model.backbone.encode(mel).states
    assert {key[2] for key in call._made if key[0] == "weights"} == {(0, 1, 2)}
    for row, (wave, name) in enumerate(zip(waves, configs, strict=True)):
        alone = model.encode([wave], [name], 0.3).states[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_the_dense_weights_that_are_kept(model, waves):
    adapter = add(model, "a", CONFIG, 1).train()
    plain = add(model, "plain", BottleneckConfig(bottleneck=6)).train()
    for site, weights in dense_of(adapter).items():
        for key, tensor in plain.tensors[site].items():
            tensor.data.copy_(weights[key].detach())
    mel = model.backbone.features(waves, 0.3)
    for name in ("a", "plain"):
        with running(model.bank.call([name] * 3, model.backbone.key_lengths(mel))):
            model.backbone.encode(mel).states.square().sum().backward()
    for site, tensors in adapter.tensors.items():
        if site.startswith("decoder"):
            continue
        for part in ("down", "up"):
            whole = plain.tensors[site][f"{part}.weight"].grad.flatten()
            chosen = unpack_mask(tensors[f"{part}.mask"], len(whole))
            torch.testing.assert_close(tensors[f"{part}.values"].grad[0], whole[chosen])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_masks_stay_bytes(model, dtype, tmp_path):
    adapter = add(model, "a", CONFIG, 1)
    before = {k: t.clone() for k, t in adapter.named_tensors()}
    adapter.to("cpu", dtype)
    for key, tensor in adapter.named_tensors():
        assert tensor.dtype == (torch.uint8 if key.endswith("mask") else dtype)
        assert "mask" not in key or torch.equal(tensor, before[key])
    assert all("mask" not in key for key, _ in adapter.named_parameters())
    adapter.to("cpu", torch.float64)
    model.bank.spill(0)
    assert model.bank["a"].spilled
    assert dict(model.bank["a"].named_tensors()).keys() == before.keys()


@pytest.mark.parametrize("bits", [None, *BITS])
def test_files_are_small_and_come_back(model, bits, tmp_path):
    config = SparseConfig(bottleneck=64, density=0.2, layer_norm=False)
    sizes = {}
    for name, chosen in (("sparse", config), ("dense", config.dense)):
        adapter = add(model, name, chosen, 1)
        adapter.info.fingerprint = model.backbone.fingerprint
        save_adapter(adapter, tmp_path / name, torch.float16, bits)
        loaded = load_adapter(tmp_path / name, model.backbone)
        for key, tensor in loaded.named_tensors():
            mine = dict(adapter.named_tensors())[key]
            assert (tensor.dtype == torch.uint8) == key.endswith("mask")
            if tensor.dtype == torch.uint8:
                assert torch.equal(tensor, mine)
            else:
                assert (tensor - mine).norm() <= 0.7 * mine.norm()
        stored = safetensors.torch.load_file(tmp_path / name / "adapter.safetensors")
        sizes[name] = sum(t.numel() * t.element_size() for t in stored.values())
    # The mask is one bit a weight: what it costs is what 1 bit a weight saves.
    assert sizes["sparse"] < {None: 0.3, 8: 0.4, 1: 1.2}[bits] * sizes["dense"]


def test_damage_is_told(model, tmp_path):
    adapter = add(model, "a", CONFIG, 1)
    adapter.info.fingerprint = model.backbone.fingerprint
    save_adapter(adapter, tmp_path)
    path = tmp_path / "adapter.safetensors"
    good = safetensors.torch.load_file(path)
    mask, values = "encoder.0.out/down.mask", "encoder.0.out/down.values"

    def refused(word, **changes):
        safetensors.torch.save_file({**good, **changes}, path)
        with pytest.raises(AdapterError, match=word) as caught:
            load_adapter(tmp_path, model.backbone)
        assert "\n" not in str(caught.value)

    flipped = good[mask].clone()
    flipped[0] ^= 1
    one_off = r"encoder.0.out: down.mask marks (95|97) of 384 weights, but 96 are stored"
    refused(one_off, **{mask: flipped})
    refused("mask is torch.float32, expected uint8", **{mask: good[mask].float()})
    refused("mask is torch.int8, expected floats", **{mask: good[mask].to(torch.int8)})
    refused("values is torch.uint8, expected floats", **{values: good[values].to(torch.uint8)})
    refused("mask has shape", **{mask: good[mask][:-1].clone()})
    refused("values has shape", **{values: good[values][:, :-1].clone()})
    bias = "encoder.0.out/up.bias"
    save_adapter(adapter, tmp_path, bits=8)
    good = safetensors.torch.load_file(path)
    refused("up.bias is torch.uint8, expected floats", **{bias: good[bias].to(torch.uint8)})
    refused("marks .* of 384 weights", **{mask: flipped})


def test_bits_beyond_the_last_weight_are_no_weights(model):
    """A width of 7 and 5 leave five bits of the last byte over."""
    family = family_of(CONFIG)
    chosen = torch.zeros(35, dtype=torch.bool)
    chosen[:4] = True
    tensors = {"down.bias": torch.zeros(7), "up.bias": torch.zeros(5)}
    for part in ("down", "up"):
        tensors |= {f"{part}.values": torch.ones(1, 4), f"{part}.mask": pack_mask(chosen)}
    assert family.fault(CONFIG, tensors) is None
    tensors["up.mask"][-1] += 1
    assert "up.mask marks 4 of 35" in family.fault(CONFIG, tensors)


def test_averages(model):
    """The mean where the same weights are kept; refused where they differ."""
    first, second = add(model, "a", CONFIG, 1), add(model, "b", CONFIG, 1)
    for _, tensor in second.named_parameters():
        tensor.data.mul_(3.0)
    mean = dict(average("mean", [first, second]).named_tensors())
    for key, tensor in first.named_tensors():
        expected = tensor if key.endswith("mask") else 2.0 * tensor
        torch.testing.assert_close(mean[key].data, expected.data)
        assert mean[key] is not tensor
    with pytest.raises(ConfigError, match=r"adapters 1 and 3 keep different weights \(encoder"):
        average("mean", [first, second, add(model, "c", CONFIG, 2)])


@pytest.mark.parametrize(
    "changes", [{"density": 0.0}, {"density": 1.01}, {"density": float("nan")}, {"score": "grasp"}]
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} is"):
        SparseConfig(**changes)


def test_large_sparse_has_as_many_weights_as_pfeiffer():
    large, dense = PRESETS["large_sparse"], PRESETS["pfeiffer"]
    assert large.bottleneck * large.density == dense.bottleneck


def test_commands(tmp_path, capsys):
    base = write_base(tmp_path / "base")
    model = speechadapt.load(base)
    for seed in (1, 2):
        adapter = add(model, f"a{seed}", CONFIG, seed)
        adapter.info.fingerprint = model.backbone.fingerprint
        save_adapter(adapter, tmp_path / f"a{seed}")
    paths = [str(tmp_path / name) for name in ("a1", "a2")]

    def run(*arguments):
        code = main(["adapters", *arguments, "--base", str(base)])
        return code, "".join(capsys.readouterr())

    code, out = run("info", paths[0])
    assert code == 0 and "sparse adapter" in out and "- density: 0.25" in out
    assert f"parameters: {adapter.parameter_count:,} (" in out
    code, out = run("diff", *paths)
    assert code == 0 and "down.mask: " in out and "bytes differ" in out
    code, out = run("average", *paths, "--out", str(tmp_path / "mean"))
    assert code == 2 and "keep different weights" in out and "Traceback" not in out
    code, _ = run("pack", paths[0], "--bits", "1", "--out", str(tmp_path / "packed"))
    assert code == 0 and load_adapter(tmp_path / "packed", model.backbone).config == adapter.config
