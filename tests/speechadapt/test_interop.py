"""LoRA in PEFT's format both ways, merged bases, LoRA from a fine-tuned base."""

import copy
import json

import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from conftest import tiny_whisper
from tiny_backbones import tiny_backbone

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bias import BitFitConfig, Ia3Config
from speechadapt.adapters.hydra import HydraConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.interop.extraction import extract_lora
from speechadapt.interop.merging import merge
from speechadapt.interop.peft import export_peft, import_peft
from speechadapt.model import SpeechModel

NAMES = ["whisper", "wav2vec2", "wav2vec2-stable", "ast"]
TOKENS = torch.tensor([[41, 42, 44, 46, 5, 6]])


def backbone_of(name):
    return WhisperBackbone(tiny_whisper()) if name == "whisper" else tiny_backbone(name)


def inputs_of(backbone):
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    values = backbone.features([wave], None).values.double()
    if isinstance(backbone, WhisperBackbone):
        return {"input_features": values, "decoder_input_ids": TOKENS}
    return {"input_values": values.mT if values.dim() == 3 else values}


def run(model, backbone, adapter=None):
    """What a model of transformers or PEFT gives, with our adapter on the backbone if asked."""
    with torch.inference_mode():
        if adapter is None:
            return model(**inputs_of(backbone))[0]
        held = SpeechModel(backbone)
        held.bank.add(adapter)
        with running(held.bank.call([adapter.name])):
            result = backbone.model(**inputs_of(backbone))[0]
        held.bank.detach()
        return result


def made(backbone, config, seed=0):
    info = AdapterInfo(fingerprint=backbone.fingerprint, base=backbone.name)
    adapter = Adapter.fresh("be", config, family_of(config), backbone.sites.values(), info)
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in adapter.named_tensors():
        if "start." not in key:
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5
            tensor.data = tensor.data.double() + 0.3 * noise
    return adapter


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=3, alpha=5.0),
        LoraConfig(rank=3, alpha=5.0, rank_stabilized=True, points=("attn.out", "ffn.in")),
        LoraConfig(rank=2, start="pissa"),
    ],
)
def test_ours_in_peft(name, config, tmp_path):
    backbone = backbone_of(name)
    adapter = made(backbone, config)
    expected = run(None, backbone, adapter)
    export_peft(adapter, backbone, tmp_path / "be")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), tmp_path / "be")
    got = run(theirs.eval(), backbone)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # stored in float32
    assert not torch.allclose(got, run(backbone.model, backbone), atol=1e-3)
    back = import_peft(tmp_path / "be", backbone)
    assert back.name == "be" and back.info == adapter.info
    torch.testing.assert_close(run(None, backbone, back), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_theirs_in_ours(name, tmp_path):
    """Ranks and alphas that differ between layers, and a part of the layers only. Of patterns that
    fit the same layer the first counts."""
    backbone = backbone_of(name)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"layers.1.*q_proj": 2, "q_proj": 3},
        alpha_pattern={"layers.1.*v_proj": 3, "v_proj": 24},
        use_rslora=True,
        init_lora_weights=False,
        layers_to_transform=None,
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(copy.deepcopy(backbone.model), config).double().eval()
    theirs.save_pretrained(tmp_path / "be")
    adapter = import_peft(tmp_path / "be", backbone, name="ro")
    assert adapter.name == "ro"
    expected = run(theirs, backbone)
    torch.testing.assert_close(run(None, backbone, adapter), expected, rtol=1e-5, atol=1e-5)


def test_names_of_ast_before_they_changed(tmp_path):
    backbone = tiny_backbone("ast")
    adapter = made(backbone, LoraConfig(rank=2))
    export_peft(adapter, backbone, tmp_path / "new")
    tensors = safetensors.torch.load_file(tmp_path / "new" / "adapter_model.safetensors")
    old = {
        key.replace(".layers.", ".encoder.layer.")
        .replace("attention.q_proj", "attention.attention.query")
        .replace("attention.v_proj", "attention.attention.value"): tensor
        for key, tensor in tensors.items()
    }
    assert set(old) != set(tensors)
    safetensors.torch.save_file(old, tmp_path / "new" / "adapter_model.safetensors")
    again = import_peft(tmp_path / "new", backbone)
    for (key, tensor), (_, value) in zip(
        adapter.named_tensors(), again.named_tensors(), strict=True
    ):
        scale = adapter.config.scale if "/up" in key else 1.0
        torch.testing.assert_close(value, (tensor * scale).float())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"modules_to_save": ["proj_out"]}, "modules_to_save"),
    ],
)
def test_what_our_lora_cannot_express_is_refused(changes, word, tmp_path):
    backbone = backbone_of("whisper")
    export_peft(made(backbone, LoraConfig(rank=2)), backbone, tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(AdapterError, match=word):
        import_peft(tmp_path / "a", backbone)


def test_tensors_are_never_ignored(tmp_path):
    backbone = backbone_of("whisper")
    export_peft(made(backbone, LoraConfig(rank=2)), backbone, tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    first = next(key for key in tensors if "lora_A" in key)

    def refused(changed, word):
        safetensors.torch.save_file(changed, path)
        with pytest.raises(AdapterError, match=word):
            import_peft(tmp_path / "a", backbone)

    refused({k: t for k, t in tensors.items() if k != first}, "without its partner")
    refused({**tensors, "base_model.model.lm_head.weight": torch.ones(2)}, "no LoRA tensor")
    other = first.replace("q_proj", "p_proj")
    refused({**tensors, other: tensors[first].clone()}, "no linear layer of tiny")
    refused({**tensors, first: tensors[first][:, :-1].contiguous()}, "has shapes")
    refused({**tensors, first: tensors[first] * float("nan")}, "NaN")
    refused({}, "no tensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(AdapterError, match="not a whole safetensors"):
        import_peft(tmp_path / "a", backbone)
    path.unlink()
    with pytest.raises(AdapterError, match="missing"):
        import_peft(tmp_path / "a", backbone)


def test_only_lora_goes_to_peft(tmp_path):
    backbone = backbone_of("whisper")
    with pytest.raises(ConfigError, match="bottleneck adapter; PEFT has LoRA alone"):
        export_peft(made(backbone, PRESETS["pfeiffer"]), backbone, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=3, points=("attn.q", "attn.k", "ffn.out")),
        LoraConfig(rank=2, start="pissa"),
        HydraConfig(rank=2, scale=0.5),
        BitFitConfig(),
        Ia3Config(),
    ],
)
def test_merged_base_computes_the_same_without_hooks(name, config, tmp_path):
    backbone = backbone_of(name)
    adapter = made(backbone, config)
    expected = run(None, backbone, adapter)
    before = run(backbone.model, backbone)
    merged = merge(backbone, adapter)
    got = run(merged, backbone)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(got, before, atol=1e-3)
    assert torch.equal(run(backbone.model, backbone), before)  # the base stays as it was
    merged.save_pretrained(tmp_path)
    loaded = type(merged).from_pretrained(tmp_path, dtype=torch.float64).eval()
    for key, tensor in merged.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_what_is_not_linear_is_not_merged():
    backbone = backbone_of("whisper")
    with pytest.raises(ConfigError, match="bottleneck adapter is not linear"):
        merge(backbone, made(backbone, PRESETS["pfeiffer"]))


def test_lora_from_a_fine_tuned_base():
    """At full rank it is the fine-tuning, at a lower one the best there is; the rest is told."""
    base, tuned = backbone_of("whisper"), backbone_of("whisper")
    torch.manual_seed(1)
    with torch.no_grad():
        for site in tuned.module_sites().values():
            change = torch.randn(site.dim, 3).double() @ torch.randn(3, site.input_dim).double()
            site.leaf.weight.add_(0.02 * change)
    points = ("attn.q", "attn.k", "attn.v", "attn.out", "ffn.in", "ffn.out")
    points += tuple(f"cross.{part}" for part in ("q", "k", "v", "out"))
    info = AdapterInfo(fingerprint=base.fingerprint)
    whole = extract_lora("a", base, tuned, LoraConfig(rank=3, points=points), info)
    assert min(whole.energy.values()) > 1 - 1e-9 and whole.left_out == []
    expected = run(tuned.model, tuned)
    got = run(None, base, whole.adapter)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    part = extract_lora("a", base, tuned, LoraConfig(rank=1, points=points), info)
    assert all(0.33 < energy < 0.9 for energy in part.energy.values())
    assert set(part.energy) == set(whole.energy)
    with torch.no_grad():
        tuned.model.model.encoder.layer_norm.bias.add_(1.0)
    told = extract_lora("a", base, tuned, LoraConfig(rank=1, points=("attn.q",)), info).left_out
    assert "model.encoder.layer_norm.bias" in told
    assert "model.encoder.layers.0.self_attn.q_proj.weight" not in told


def test_extraction_wants_the_base_it_was_tuned_from():
    with pytest.raises(ConfigError, match="different models"):
        extract_lora("a", backbone_of("whisper"), tiny_backbone("ast"), LoraConfig(), AdapterInfo())
