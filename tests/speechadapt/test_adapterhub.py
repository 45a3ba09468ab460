"""AdapterHub's adapters compute here what they compute there (files of data/adapterhub/make.py)."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_backbones import tiny_backbone
from whisper_files import write_tokenizer

import speechadapt
from speechadapt.backbones.base import Backbone
from speechadapt.call import running
from speechadapt.cli.main import main
from speechadapt.errors import AdapterError
from speechadapt.features import Features
from speechadapt.interop.adapterhub import import_adapterhub
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter, save_adapter

DATA = Path(__file__).parent / "data" / "adapterhub"
NAMES = ["double_cross", "double_seq_bn", "par_bn", "par_mh", "plus", "seq_bn", "seq_ln"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The folder of the tiny Whisper that they were made for."""
    folder = shutil.copytree(DATA / "base", tmp_path_factory.mktemp("base") / "base")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(base) -> Backbone:
    return speechadapt.load(base).backbone


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(DATA / "reference.safetensors")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of one of them, to be spoilt."""
    return shutil.copytree(DATA / "seq_bn", tmp_path / "seq_bn")


def logits(model, reference, routes, rows):
    features = Features(
        reference["features"][rows], torch.full((len(rows),), reference["features"].shape[2])
    )
    with torch.inference_mode(), running(model.bank.call(routes)):
        encoded = model.backbone.encode(features)
        states = model.backbone.decoder_states(reference["tokens"][rows], encoded)
        return model.backbone.logits(states)


def test_equal_to_the_library(backbone, reference, tmp_path):
    """Alone, and each utterance with another one, after a round trip through our own format."""
    model = SpeechModel(backbone)
    for name in NAMES:
        save_adapter(import_adapterhub(DATA / name, backbone), tmp_path / name)
        model.bank.add(load_adapter(tmp_path / name, backbone))
    routes = [None, *NAMES]
    expected = [reference[f"logits/{route or 'base'}"] for route in routes]
    for route, wanted in zip(routes, expected, strict=True):
        got = logits(model, reference, [route] * 2, [0, 1])
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        assert (route is None) == torch.allclose(wanted, expected[0], atol=0.5)
    together = logits(model, reference, routes * 2, [0] * len(routes) + [1] * len(routes))
    wanted = torch.cat([torch.stack([each[row] for each in expected]) for row in (0, 1)])
    torch.testing.assert_close(together, wanted, rtol=1e-5, atol=1e-5)
    model.bank.detach()


def test_command(base, backbone, capsys, tmp_path):
    arguments = ["adapters", "import", str(DATA / "double_seq_bn"), "--base", str(base)]
    arguments += ["--name", "ro", "--language", "ro", "--out", str(tmp_path / "ro")]
    assert main(arguments) == 0
    assert "adapter ro: 656 parameters from AdapterHub" in capsys.readouterr().out
    assert load_adapter(tmp_path / "ro", backbone).info.language == "ro"


def test_what_is_known_of_it(backbone):
    adapter = import_adapterhub(DATA / "par_mh", backbone)
    assert adapter.name == "par_mh" and adapter.info.fingerprint == backbone.fingerprint
    assert adapter.config.points == ("attn.out", "ffn.out")
    assert adapter.config.stacks == ("encoder",)  # leave_out names the decoder's layers
    assert adapter.config.scale == 2.0 and adapter.config.activation == "silu"
    assert import_adapterhub(DATA / "par_mh", backbone, "ro").name == "ro"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "lora"}, "architecture is 'lora'"),
        ({"ln_after": True}, "ln_after is True"),
        ({"use_gating": True}, "use_gating"),
        ({"phm_layer": True}, "phm_layer"),
        ({"inv_adapter": "nice"}, "inv_adapter is 'nice'"),
        ({"non_linearity": "tanh"}, "non_linearity is 'tanh'"),
        ({"non_linearity": "gelu_new"}, "gelu_new"),
        ({"residual_before_ln": "post_add"}, "post_add"),
        ({"residual_before_ln": False}, "added 2 times"),
        ({"original_ln_after": False}, "added 0 times"),
        ({"is_parallel": True, "original_ln_after": False}, "added 0 times"),
        ({"mh_adapter": True}, "after attention"),
        ({"output_adapter": False}, "nowhere"),
        ({"scaling": "loud"}, "scaling is 'loud'"),
        ({"colour": "red"}, "colour is 'red'"),
        ({"leave_out": [0]}, r"has one at encoder\.0\.out"),
        ({"original_ln_before": False, "cross_adapter": True}, r"has none at decoder\.0\.cross"),
        ({"ln_before": True}, "norm.bias.*expected"),
    ],
)
def test_what_ours_cannot_express_is_refused(backbone, folder, changes, words):
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["config"] |= changes
    path.write_text(json.dumps(settings))
    with pytest.raises(AdapterError, match=words):
        import_adapterhub(folder, backbone)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bart"}, "type 'bart'"),
        ({"version": None}, "not written by AdapterHub"),
        ({"config": "pfeiffer"}, "not written by AdapterHub"),
        ({"model_class": "WhisperForAudioClassification"}, r"has one at decoder\.0\.out"),
    ],
)
def test_other_models_and_releases_are_refused(backbone, folder, changes, words):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(AdapterError, match=words):
        import_adapterhub(folder, backbone)


def test_another_base_is_refused(folder):
    with pytest.raises(AdapterError, match="'wav2vec2'"):
        import_adapterhub(folder, tiny_backbone("wav2vec2"))


def test_tensors_are_never_ignored(backbone, folder):
    path = folder / "adapter.safetensors"
    tensors = safetensors.torch.load_file(path)
    first = next(key for key in tensors if "encoder" in key and "down.0.weight" in key)

    def refused(changed, words):
        own = {key: tensor.clone() for key, tensor in changed.items()}
        safetensors.torch.save_file(own, path)
        with pytest.raises(AdapterError, match=words):
            import_adapterhub(folder, backbone)

    def without(words):
        return {key: tensor for key, tensor in tensors.items() if words not in key}

    refused(without("encoder.layers.1"), r"has none at encoder\.1\.out")
    refused(without("encoder.layers.1.output_adapters.adapters.seq_bn.adapter_up.b"), "expected")
    refused(without(first.removeprefix("model.")), r"at encoder\.\d\.out it has")
    refused({**tensors, "lm_head": torch.ones(2)}, "lm_head is no tensor of such")
    refused({**tensors, first: tensors[first][:, :-1].contiguous()}, "expected")
    refused({**tensors, first: tensors[first] * float("nan")}, "NaN")
    refused({**tensors, first.replace("layers.", "layers.7"): tensors[first]}, r"encoder\.7\d")
    refused({**tensors, first.replace("down.0.weight", "gate.weight"): tensors[first]}, "gate")
    refused({}, "no tensors")
    path.unlink()
    with pytest.raises(AdapterError, match="missing"):
        import_adapterhub(folder, backbone)


def test_two_names_of_one_normalisation_must_agree(backbone, tmp_path):
    folder = shutil.copytree(DATA / "seq_ln", tmp_path / "seq_ln")
    path = folder / "adapter.safetensors"
    tensors = safetensors.torch.load_file(path)
    one = {key: tensor for key, tensor in tensors.items() if "norm_before" not in key}
    safetensors.torch.save_file(one, path)
    import_adapterhub(folder, backbone)
    key = next(key for key in tensors if "norm_before" in key)
    safetensors.torch.save_file({**tensors, key: tensors[key] + 1}, path)
    with pytest.raises(AdapterError, match="different values"):
        import_adapterhub(folder, backbone)


def test_a_pickle_is_never_read(backbone, folder):
    (folder / "adapter.safetensors").rename(folder / "pytorch_adapter.bin")
    with pytest.raises(AdapterError, match=r"pickled.*use_safetensors=True"):
        import_adapterhub(folder, backbone)


def test_a_trained_head_is_refused(backbone, folder):
    path = folder / "model_head.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({key: tensor + 1 for key, tensor in tensors.items()}, path)
    with pytest.raises(AdapterError, match="trained output projection"):
        import_adapterhub(folder, backbone)
    path.rename(folder / "pytorch_model_head.bin")
    with pytest.raises(AdapterError, match=r"pytorch_model_head\.bin: is pickled"):
        import_adapterhub(folder, backbone)
