"""Adapters in 8 bits and 1 bit: what is stored, what is lost, what is refused."""

import json

import pytest
import safetensors.torch
import torch
from adapting import add
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.adapters.registry import PRESETS
from speechadapt.errors import AdapterError
from speechadapt.lowbit import BITS, pack, rounded, unpack
from speechadapt.store import load_adapter, save_adapter


def shapes_of(tensors):
    return {key: tensor.shape for key, tensor in tensors.items()}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 20),
    depth=st.integers(1, 3),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e20]),
    seed=st.integers(0, 100),
    bits=st.sampled_from(BITS),
)
def test_round_trip(rows, columns, depth, size, seed, bits):
    generator = torch.Generator().manual_seed(seed)
    weight = size * torch.randn(rows, columns, depth, generator=generator)
    tensors = {"a/w": weight, "a/b": torch.randn(rows, generator=generator)}
    stored = pack(tensors, bits)
    found = unpack(stored, shapes_of(tensors), bits)
    for key, tensor in tensors.items():  # what is trained is what is stored, to the last bit
        assert torch.equal(rounded(tensor, bits), found[key])
    assert set(found) == set(tensors)
    assert torch.equal(found["a/b"], tensors["a/b"])
    assert found["a/w"].shape == weight.shape and torch.isfinite(found["a/w"]).all()
    if bits == 8:
        axis = 1 if rows <= columns * depth else 0  # a scale for each of the shorter one
        half = weight.flatten(1).abs().amax(axis) / 127 / 2
        error = (found["a/w"] - weight).flatten(1).abs().amax(axis)
        assert len(stored["a/w:scale"]) == min(rows, columns * depth)
        assert (error <= half * 1.001 + 1e-37).all()
        assert stored["a/w:codes"].numel() == weight.numel()
    else:
        assert stored["a/w:codes"].numel() == rows * -(-columns * depth // 8)
        assert len(found["a/w"].unique()) <= 2


def test_one_bit_loses_what_the_theory_says():
    """Of a normal distribution, 1 - 2/pi of the variance; the paper's own levels lose more."""
    weight = torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    found = unpack(pack({"w": weight}, 1), {"w": weight.shape}, 1)["w"]
    assert float((found - weight).square().mean()) == pytest.approx(1 - 2 / torch.pi, abs=0.01)
    theirs = 0.6745 * found / found.abs().mean()
    assert (theirs - weight).square().mean() > (found - weight).square().mean()


@pytest.mark.parametrize("bits", BITS)
def test_gradients_pass_the_rounding(bits):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    factor = torch.arange(12.0).view(3, 4)
    made = rounded(weight, bits)
    (made * factor).sum().backward()
    assert torch.equal(weight.grad, factor) and not torch.equal(made, weight)
    bias = torch.randn(3)
    assert rounded(bias, bits) is bias
    assert not rounded(torch.zeros(3, 4), bits).any()
    half = torch.randn(3, 4).half()
    assert rounded(half, bits).dtype == torch.float16


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ["pfeiffer", "lora", "conformer", "soft_moa"])
def test_stored_and_loaded(model, name, bits, tmp_path):
    adapter = add(model, "be", PRESETS[name], 1)
    adapter.info.fingerprint = model.backbone.fingerprint
    save_adapter(adapter, tmp_path / "whole", torch.float32)
    save_adapter(adapter, tmp_path / "packed", torch.float32, bits)
    loaded = dict(load_adapter(tmp_path / "packed", model.backbone).named_tensors())
    for key, tensor in adapter.named_tensors():
        distance = (loaded[key] - tensor).norm() / tensor.norm().clamp(min=1e-9)
        assert distance < (0.01 if bits == 8 or tensor.dim() < 2 else 0.75), key
    sizes = [(tmp_path / f / "adapter.safetensors").stat().st_size for f in ("packed", "whole")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("bits", BITS)
def test_damage_is_told(model, bits, tmp_path):
    adapter = add(model, "be", PRESETS["lora"], 1)
    adapter.info.fingerprint = model.backbone.fingerprint
    save_adapter(adapter, tmp_path, bits=bits)
    path = tmp_path / "adapter.safetensors"
    good = safetensors.torch.load_file(path)
    codes = next(key for key in good if key.endswith(":codes"))

    def refused(changed, word):
        safetensors.torch.save_file(changed, path)
        with pytest.raises(AdapterError, match=word):
            load_adapter(tmp_path, model.backbone)

    refused({k: t for k, t in good.items() if k != codes}, "codes or scales are missing")
    refused({**good, "x:codes": good[codes].clone()}, "not of this adapter")
    refused({**good, codes: good[codes][:, :-1].contiguous()}, "expected torch")
    refused({**good, codes: good[codes].float()}, "codes are torch.float32")
    scale = codes.replace("codes", "scale")
    refused({**good, scale: good[scale] * float("nan")}, "NaN")
    safetensors.torch.save_file(good, path)
    description = json.loads((tmp_path / "speechadapt.json").read_text())
    (tmp_path / "speechadapt.json").write_text(json.dumps({**description, "bits": 4}))
    with pytest.raises(AdapterError, match="bits is 4, this version reads 8 and 1"):
        load_adapter(tmp_path, model.backbone)
    del description["bits"]
    (tmp_path / "speechadapt.json").write_text(json.dumps(description))
    with pytest.raises(AdapterError, match="expected floats"):
        load_adapter(tmp_path, model.backbone)
