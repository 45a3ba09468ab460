"""Telling bases apart by their weights, and seeing any change of them."""

import pytest
import torch
from whisper_files import tiny_whisper, write_transformers

from speechadapt.backbones.checkpoints import fingerprint, load_whisper
from speechadapt.backbones.weights import checksum


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


@pytest.fixture
def folder(original, tmp_path):
    """A good folder that a test may damage."""
    return write_transformers(tmp_path / "model", original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_changes_the_weights_but_not_the_fingerprint(folder, original, dtype):
    loaded = load_whisper(folder, dtype=dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert loaded.fingerprint == fingerprint(original)


def test_float16_and_float32_copies_have_one_fingerprint(tmp_path, original):
    half = write_transformers(tmp_path / "half", tiny_whisper().half())
    loaded = load_whisper(half)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert loaded.fingerprint == fingerprint(original)
    assert checksum(loaded.model) != checksum(original)


def test_other_weights_or_shapes_have_another_fingerprint(original):
    prints = {
        fingerprint(model)
        for model in (
            original,
            tiny_whisper(seed=1),
            tiny_whisper(encoder_layers=3),
            tiny_whisper(encoder_attention_heads=4),
            tiny_whisper(num_mel_bins=128),
        )
    }
    assert len(prints) == 5
    assert all(len(digits) == 64 for digits in prints)


def test_checksum_sees_one_bit_anywhere():
    model = tiny_whisper()
    before = checksum(model)
    assert checksum(model) == before
    for parameter in model.parameters():
        bits = parameter.detach().reshape(-1).view(torch.int32)
        bits[-1] ^= 1
        assert checksum(model) != before
        bits[-1] ^= 1
    assert checksum(model) == before
    model.register_buffer("statistics", torch.zeros(2), persistent=False)
    assert checksum(model) != before


def test_checksum_tells_minus_zero_types_and_shapes_apart():
    def of(tensor):
        module = torch.nn.Module()
        module.register_buffer("value", tensor)
        return checksum(module)

    sums = {
        of(tensor)
        for tensor in (
            torch.zeros(4),
            -torch.zeros(4),
            torch.zeros(2, 2),
            torch.zeros(4, dtype=torch.int32),
            torch.zeros(4, dtype=torch.bfloat16),
            torch.zeros(()),
        )
    }
    assert len(sums) == 6
    assert of(torch.arange(6.0).reshape(2, 3).T) == of(torch.tensor([[0.0, 3], [1, 4], [2, 5]]))
