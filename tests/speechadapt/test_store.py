"""Adapters on disk: whole round trip, and everything that does not fit is refused by name."""

import json
import pickle

import pytest
import safetensors.torch
import torch
from conftest import tiny_whisper

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import family_of, preset
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.errors import AdapterError, RouteError
from speechadapt.store import load_adapter, save_adapter


@pytest.fixture
def stored(tmp_path, model):
    """A folder with an adapter of the fixture's model, and the adapter."""
    config = preset("houlsby")
    info = AdapterInfo(
        language="be",
        trailing_silence=0.5,
        base="tiny",
        fingerprint=model.backbone.fingerprint,
        licence="CC0",
        training={"command": "speechadapt train …"},
        results={"WER": "46.4 %"},
    )
    adapter = Adapter.fresh(
        "be", config, family_of(config), model.backbone.sites.values(), info, seed=3
    )
    save_adapter(adapter, tmp_path / "be")
    return tmp_path / "be", adapter


def change_description(folder, **changes):
    path = folder / "speechadapt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    path = folder / "adapter.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def test_round_trip(stored, model):
    folder, adapter = stored
    loaded = load_adapter(folder, model.backbone)
    assert (loaded.name, loaded.config, loaded.info) == ("be", adapter.config, adapter.info)
    theirs = dict(adapter.named_tensors())
    for key, tensor in loaded.named_tensors():
        assert torch.equal(tensor, theirs[key])
    assert set(dict(loaded.named_tensors())) == set(theirs)


def test_keys_are_canonical_sites_and_the_card_says_what_it_is(stored):
    folder, adapter = stored
    tensors = safetensors.torch.load_file(folder / "adapter.safetensors")
    assert "encoder.1.ffn.out/down.weight" in tensors
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter.safetensors",
        "speechadapt.json",
    ]
    card = (folder / "README.md").read_text()
    for words in ("`be`", "CC0", "46.4 %", "speechadapt train", f"{adapter.parameter_count:,}"):
        assert words in card


def test_saving_again_gives_the_same_bytes_and_replaces(stored, tmp_path):
    folder, adapter = stored
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_adapter(adapter, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["be"]


def test_half_precision_is_half_the_size(stored, tmp_path):
    folder, adapter = stored
    save_adapter(adapter, tmp_path / "half", torch.float16)
    sizes = [(p / "adapter.safetensors").stat().st_size for p in (folder, tmp_path / "half")]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.1)


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_what_could_not_be_read_again_is_not_written(stored, model, tmp_path, value):
    _, adapter = stored
    adapter.tensors["encoder.0.ffn.out"]["up.bias"].data[0] = value
    with pytest.raises(AdapterError, match=r"ffn.out/up.bias: its largest value is (1e\+05|nan)"):
        save_adapter(adapter, tmp_path / "half", torch.float16)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("name", ["a+b", "x y", "a/b", "none", ""])
def test_a_name_that_no_route_could_use_is_not_written(stored, tmp_path, name):
    _, adapter = stored
    adapter.name = name
    with pytest.raises(RouteError, match="cannot be used"):
        save_adapter(adapter, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_base_is_refused(stored):
    other = WhisperBackbone(tiny_whisper(seed=1))
    with pytest.raises(AdapterError, match="made for the base 'tiny'"):
        load_adapter(stored[0], other)


def test_nearly_the_same_weights_are_the_same_base(stored):
    """Half-precision copies of one checkpoint round to the same fingerprint."""
    rounded = tiny_whisper()
    rounded.model.half().double()
    assert load_adapter(stored[0], WhisperBackbone(rounded)).name == "be"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 99}, "schema 99"),
        ({"name": None}, "'name'"),
        ({"config": {"method": "pickle"}}, "method"),
        ({"config": {"method": "bottleneck", "bottleneck": 0}}, "bottleneck"),
        ({"config": {"method": "bottleneck", "bottleneck": "wide"}}, "a whole number"),
        ({"config": {"method": "bottleneck", "bottleneck": 2.5}}, "a whole number"),
        ({"config": {"method": "bottleneck", "bottleneck": True}}, "a whole number"),
        ({"config": {"method": "bottleneck", "bottleneck": 10**9}}, "65536 at most"),
        ({"config": {"method": "bottleneck", "points": [1]}}, "a list, each a text"),
        ({"config": {"method": []}}, "method is \\[\\]"),
        ({"head": {"kind": []}}, "kind is \\[\\]"),
        ({"head": {"kind": "ctc"}}, "a ctc head needs tokens"),
        ({"head": {"kind": "ctc", "tokens": 5}}, "tokens is 5, expected a list"),
        ({"head": {"kind": "classifier", "labels": ["a", "b"], "layers": "x"}}, "layers is 'x'"),
        ({"bits": True}, "bits is True"),
        *(({"name": name}, "cannot be used") for name in ("a+b", "x y", "../x", "none", "")),
        ({"info": {"fingerprint": None}}, "fingerprint is None, expected a text"),
        ({"info": {"fingerprint": 5}}, "fingerprint is 5, expected a text"),
        ({"info": {"training": "x"}}, "training is 'x', expected settings by name"),
        ({"info": {"trailing_silence": True}}, "trailing_silence is True, expected a number"),
        ({"info": {"colour": "red"}}, "colour"),
        ({"info": {"trailing_silence": "long"}}, "trailing_silence"),
        ({"info": {"trailing_silence": -1}}, "trailing_silence"),
    ],
)
def test_bad_descriptions_are_refused(stored, model, changes, words):
    change_description(stored[0], **changes)
    with pytest.raises(AdapterError, match=words):
        load_adapter(stored[0], model.backbone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("encoder.0.ffn.out/down.weight"), "1 missing.*encoder.0.ffn.out/down"),
        (lambda t: t.update(evil=torch.zeros(1)), "1 left over.*evil"),
        (lambda t: t.update({"encoder.0.ffn.out/up.bias": torch.zeros(3)}), r"shape \[3\]"),
        (lambda t: t["encoder.0.ffn.out/up.bias"].fill_(float("nan")), "NaN"),
        (
            lambda t: t.update({"encoder.0.ffn.out/up.bias": torch.zeros(64, dtype=torch.int64)}),
            "int64",
        ),
        (
            lambda t: t.update(
                {"encoder.0.ffn.out/up.bias": torch.zeros(64, dtype=torch.float8_e4m3fn)}
            ),
            "float8",
        ),
        (  # finite as it is stored, infinite as it is used
            lambda t: t.update(
                {"encoder.0.ffn.out/up.bias": torch.full((64,), 1e300, dtype=torch.float64)}
            ),
            "NaN or infinity",
        ),
    ],
)
def test_bad_tensors_are_refused(stored, model, change, words):
    change_tensors(stored[0], change)
    with pytest.raises(AdapterError, match=words):
        load_adapter(stored[0], model.backbone)


def test_damaged_and_foreign_files_are_refused(stored, model, tmp_path):
    folder, _ = stored
    path = folder / "adapter.safetensors"
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:50], b"", pickle.dumps({"a": 1})):
        path.write_bytes(data)
        with pytest.raises(AdapterError, match=r"adapter\.safetensors"):
            load_adapter(folder, model.backbone)
    path.unlink()
    with pytest.raises(AdapterError, match="missing"):
        load_adapter(folder, model.backbone)
    (folder / "speechadapt.json").write_text("{")
    with pytest.raises(AdapterError, match="JSON"):
        load_adapter(folder, model.backbone)
    with pytest.raises(AdapterError, match="no adapter folder"):
        load_adapter(tmp_path / "nowhere", model.backbone)
