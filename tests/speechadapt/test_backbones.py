"""wav2vec2 family and AST: equal to transformers, no leak of padding, every family of adapters."""

import json

import numpy as np
import pytest
import torch
from adapting import add
from tiny_backbones import NAMES, SPEECH, tiny_backbone, write_vocabulary
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family
from speechadapt.adapters.registry import PRESETS
from speechadapt.call import running
from speechadapt.errors import CheckpointError, ConfigError
from speechadapt.features import FilterBank, Waves
from speechadapt.model import SpeechModel
from speechadapt.route import Stack
from speechadapt.store import load_adapter, save_adapter


@pytest.fixture(params=NAMES)
def model(request):
    return SpeechModel(tiny_backbone(request.param))


def states(model, waves, routes):
    return model.encode(waves, routes, 0.0)


def test_equal_to_transformers(model, waves):
    """Without a route, one utterance at a time, bit for bit."""
    for wave in waves:
        features = model.backbone.features([wave], 0.0)
        values = features.values.double()
        with torch.inference_mode():
            plain = model.backbone.model.base_model(
                values.mT if values.dim() == 3 else values
            ).last_hidden_state
        assert torch.equal(states(model, [wave], [None]).states, plain)


def test_padding_never_leaks(model, waves):
    """Also with front ends that normalise over time, which leak in transformers."""
    together = states(model, waves, [None] * 3)
    for row, wave in enumerate(waves):
        alone = states(model, [wave], [None])
        length = int(alone.lengths[0])
        assert int(together.lengths[row]) == length == alone.states.shape[1]
        torch.testing.assert_close(
            together.states[row, :length], alone.states[0], rtol=1e-10, atol=1e-10
        )


def test_transformers_leaks_padding_where_ours_does_not(waves):
    """What the masked normalisation is for: the same batch through transformers differs widely."""
    model = SpeechModel(tiny_backbone("wav2vec2"))
    features = model.backbone.features(waves[:2], 0.0)
    mask = torch.arange(features.values.shape[1]) < features.lengths[:, None]
    with torch.inference_mode():
        theirs = model.backbone.model(features.values.double(), attention_mask=mask.long())
    alone = states(model, waves[1:2], [None])
    length = int(alone.lengths[0])
    error = (theirs.last_hidden_state[1, :length] - alone.states[0]).norm() / alone.states.norm()
    assert error > 0.01


@pytest.mark.parametrize("preset", PRESETS)
def test_contract_of_every_family(model, waves, preset):
    """Identity at insertion, and mixed = single, or a refusal that says why."""
    config = PRESETS[preset]
    before = states(model, waves, [None] * 3).states
    try:
        add(model, "fresh", config, effect=False)
    except ConfigError as error:
        if preset == "mms":  # where a checkpoint has no language adapters
            assert model.backbone.name != "mms" and "points has language" in str(error)
            return
        assert model.backbone.name in ("wavlm", "wavlm-stable")
        assert any(word in str(error) for word in ("linear layer", "parallel", "attn.k", "*."))
        return
    assert torch.equal(states(model, waves, ["fresh"] * 3).states, before)
    add(model, "a", config, 1)
    add(model, "b", config, 2)
    add(model, "other", PRESETS["pfeiffer"], 3)
    batch = [waves[0], waves[1], waves[2], waves[1]]
    routes = ["a", "b", None, Stack("b", "other")]
    together = states(model, batch, routes)
    same = []
    for row, (wave, route) in enumerate(zip(batch, routes, strict=True)):
        alone = states(model, [wave], [route])
        length = int(alone.lengths[0])
        torch.testing.assert_close(
            together.states[row, :length], alone.states[0], rtol=1e-9, atol=1e-9
        )
        plain = states(model, [wave], [None]).states
        same.append(torch.allclose(alone.states, plain, rtol=1e-6, atol=1e-6))
    assert same[2:] == [True, False]
    # A head changes no state; of two random hard gates one may be shut for a whole utterance.
    assert all(same[:2]) == (preset == "head")


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"mms"}))  # MMS's: test_mms.py
@pytest.mark.parametrize("base", ["wav2vec2", "ast"])
def test_every_family_is_stored_and_learns(base, name, waves, tmp_path):
    """Where layers end with their normalisation, and where positions are patches."""
    model = SpeechModel(tiny_backbone(base))
    adapter = add(model, "a", PRESETS[name], 1)
    adapter.info.fingerprint = model.backbone.fingerprint
    expected = states(model, waves[:1], ["a"]).states
    save_adapter(adapter, tmp_path / "a", torch.float64)
    loaded = model.bank.add(load_adapter(tmp_path / "a", model.backbone))
    assert loaded.config == adapter.config
    assert all(map(torch.equal, *(dict(a.named_tensors()).values() for a in (adapter, loaded))))
    got = states(model, waves[:1], ["a"]).states
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    features = model.backbone.features(waves[:2], 0.0)
    call = model.bank.call(["a", "a"], model.backbone.key_lengths(features))
    model.bank["a"].train()
    parameters = dict(loaded.named_parameters())
    with running(call):
        loss = model.backbone.encode(features).states[:, :9, ::3].square().sum()
    if parameters:
        loss.backward()
    dead = {key for key, p in parameters.items() if p.grad is None or not p.grad.abs().max() > 1e-9}
    # A shift of all keys changes no softmax, one before a batch norm nothing behind it.
    shifts = ("attn.k/shift", *(("ffn.out/conv.bias",) if name == "conformer" else ()))
    assert [key for key in dead if not key.endswith(shifts)] == []
    assert all(p.grad is None for p in model.backbone.model.parameters())


def test_hooks_reach_what_a_sub_layer_reads_and_leaves(model, waves):
    """Parallel, sequential and layer-output adapters against the tensors transformers computes."""
    layer = model.backbone.sites["encoder.1.ffn.out"]
    seen = {}
    entry_hook = layer.entry.register_forward_hook(
        lambda _m, inputs, output: seen.update(residual=inputs[0], normed=output)
    )
    leaf_hook = layer.leaf.register_forward_hook(lambda _m, _i, output: seen.update(left=output))
    states(model, waves[:1], [None])
    entry_hook.remove()
    leaf_hook.remove()
    read = seen["normed"] if layer.pre_norm else seen["residual"]
    sources = {}

    class Spy(Family):
        def __init__(self, source):
            self.reads = source

        def source(self, config, point):
            return self.reads

        def init(self, config, site, generator):
            return {"x": torch.zeros(1)}

        def apply(self, config, weights, batch):
            sources[self.reads] = batch.source[0]
            return batch.target

    for source in ("output", "sublayer_input", "leaf_input"):
        config = AdapterConfig(points=("ffn.out",), top_layers=1)
        model.bank.add(
            Adapter.fresh("spy", config, Spy(source), model.backbone.sites.values(), AdapterInfo())
        )
        states(model, waves[:1], ["spy"])
    assert torch.equal(sources["sublayer_input"], read)
    assert torch.equal(sources["output"], seen["left"])
    assert sources["leaf_input"].shape[-1] == layer.input_dim


def test_wavlm_refuses_what_no_hook_reaches():
    model = SpeechModel(tiny_backbone("wavlm"))
    with pytest.raises(ConfigError, match=r"points has \*.q, \*.v; this backbone has"):
        add(model, "a", PRESETS["lora"])


@pytest.mark.parametrize("normalize", [True, False])
def test_waves_are_those_of_transformers(waves, normalize):
    theirs = Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)(
        waves, sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    ours = Waves(normalize, 400)(waves, 0.0)
    torch.testing.assert_close(ours.values, theirs.input_values, rtol=1e-5, atol=1e-5)
    assert ours.lengths.tolist() == theirs.attention_mask.sum(1).tolist()


def test_filter_banks_are_those_of_transformers(waves):
    """Shorter, longer than AST's window, and shorter than one frame."""
    waves = [*waves, np.tile(waves[0], 10), waves[0][:300]]
    extractor = ASTFeatureExtractor()
    theirs = extractor(waves[:4], sampling_rate=16_000, return_tensors="pt").input_values
    ours = FilterBank(128, 1024, extractor.mean, extractor.std)(waves).values
    torch.testing.assert_close(ours[:4].mT, theirs, rtol=1e-5, atol=1e-5)
    assert (ours[4] == ours[0, :, -1:]).all()


def test_too_short_for_one_position(waves):
    for name in SPEECH:
        model = SpeechModel(tiny_backbone(name))
        for wave in (np.zeros(0, np.float32), waves[0][:7]):
            encoded = states(model, [wave, waves[0]], [None, None])
            assert int(encoded.lengths[0]) == 1
            assert torch.isfinite(encoded.states[0, 0]).all()


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-stable", "mms", "hubert", "wavlm", "ast"])
def test_loads_from_a_folder(name, waves, tmp_path):
    backbone = tiny_backbone(name)
    backbone.model.float().save_pretrained(tmp_path / "base")
    write_vocabulary(tmp_path / "base")
    loaded = speechadapt.load(tmp_path / "base")
    assert loaded.backbone.fingerprint == tiny_backbone(name).fingerprint
    expected = SpeechModel(backbone).encode(waves, [None] * 3, 0.0).states
    torch.testing.assert_close(loaded.encode(waves, [None] * 3, 0.0).states, expected)


def test_the_extractor_settings_of_a_folder_are_taken(waves, tmp_path):
    tiny_backbone("wav2vec2").model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    values = speechadapt.load(tmp_path).backbone.features(waves[:1], 0.0).values
    assert torch.equal(values[0], torch.from_numpy(waves[0]))
    folder = tmp_path / "ast"
    tiny_backbone("ast").model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"mean": 1.0, "std": 2.0}))
    values = speechadapt.load(folder).backbone.features(waves[1:2], 0.0).values
    assert float(values[0, 0, -1]) == -0.25


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert'; supported are whisper, wav2vec2"):
        speechadapt.load(tmp_path)
