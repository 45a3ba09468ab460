"""Language adapters of MMS: what transformers' ``load_adapter`` computes, for each utterance."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from tiny_backbones import SPEECH, tiny_backbone, write_vocabulary
from tones import command, write_base, write_tones
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.mms import MmsConfig
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.backbones.wav2vec2 import Wav2Vec2Backbone, site_table
from speechadapt.cli.main import main
from speechadapt.data import load_utterances, write_data_dir
from speechadapt.decoding.ctc import decode_ctc
from speechadapt.decoding.options import DecodeOptions
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.interop.formats import export_adapter, import_adapter
from speechadapt.interop.mms import import_mms
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter, save_adapter
from speechadapt.training.hyper import HyperTarget

LETTERS = {"eng": "abcdefg", "bel": "абвгдеё", "ron": "abcăâ"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small MMS as its hub repository is: a model in English, adapters, their vocabularies."""
    folder = tmp_path_factory.mktemp("mms")
    write_vocabulary(folder)
    vocabularies = {
        language: {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *letters])}
        for language, letters in LETTERS.items()
    }
    (folder / "vocab.json").write_text(json.dumps(vocabularies))
    config_class, _, changes = SPEECH["mms"]
    settings = tiny_backbone("mms").model.config.to_diff_dict() | changes
    torch.manual_seed(0)
    for language, vocabulary in vocabularies.items():
        config = config_class(**(settings | {"vocab_size": len(vocabulary)}))
        if language == "eng":
            model = Wav2Vec2ForCTC(config).eval()
            model.save_pretrained(folder)
        model.config.vocab_size = len(vocabulary)
        model.lm_head = torch.nn.Linear(config.hidden_size, len(vocabulary))
        with torch.no_grad():
            for tensor in model._get_adapters().values():
                tensor.normal_(0, 0.4)
        own = {key: tensor.contiguous() for key, tensor in model._get_adapters().items()}
        safetensors.torch.save_file(own, folder / f"adapter.{language}.safetensors")
    return folder


@pytest.fixture
def model(folder):
    return speechadapt.load(folder)


def theirs(folder, language, waves):
    """Log-probabilities of each wave, as transformers computes them."""
    network = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    network.load_adapter(language, local_files_only=True)
    backbone = Wav2Vec2Backbone(network, "theirs")
    with torch.inference_mode():
        return [
            network(backbone.features([wave], 0.0).values).logits[0].log_softmax(-1)
            for wave in waves
        ]


def ours(model, waves, routes):
    encoded = model.encode(waves, routes, 0.0)
    return [
        model.head(route).log_probs(encoded.rows(torch.tensor([row])))[0]
        for row, route in enumerate(routes)
    ]


def test_equal_to_transformers(model, folder, waves, tmp_path):
    """Alone and mixed, with heads of different size, after a round trip through our format."""
    for language in LETTERS:
        adapter, library = import_adapter(
            folder / f"adapter.{language}.safetensors", model.backbone
        )
        assert library == "MMS" and adapter.name == adapter.info.language == language
        save_adapter(adapter, tmp_path / language)
        model.bank.add(load_adapter(tmp_path / language, model.backbone))
        assert "".join(model.head(language).config.tokens[5:]) == LETTERS[language]
    routes = ["bel", "ron", "eng"]
    together = ours(model, waves, routes)
    plain = ours(model, waves, [None] * 3)
    for row, route in enumerate(routes):
        expected = theirs(folder, route, waves)
        for got, wanted in zip(ours(model, waves, [route] * 3), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together[row], expected[row], rtol=1e-5, atol=1e-5)
        assert plain[row].shape != expected[row].shape or not torch.allclose(
            plain[row], expected[row], atol=0.1
        )


def test_the_base_keeps_its_own_language(model, folder, waves):
    """Without a route it is transformers' model, also beside utterances of another language."""
    network = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    features = model.backbone.features(waves[:1], 0.0)
    with torch.inference_mode():
        expected = network(features.values).logits.log_softmax(-1)[0]
    assert torch.equal(ours(model, waves[:1], [None])[0], expected)
    model.bank.add(import_mms(folder / "adapter.bel.safetensors", model.backbone))
    mixed = ours(model, [waves[0], waves[1]], [None, "bel"])[0]
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)


def test_a_fresh_one_is_the_checkpoints_own(waves):
    """So a new language starts where the base is."""
    model = SpeechModel(tiny_backbone("mms"))
    config, sites = MmsConfig(), model.backbone.sites.values()
    fresh = Adapter.fresh("new", config, family_of(config), sites, AdapterInfo())
    before = model.encode(waves, [None] * 3, 0.0).states
    model.bank.add(fresh)
    assert torch.equal(model.encode(waves, ["new"] * 3, 0.0).states, before)
    assert fresh.parameter_count == 2 * (2 * 32 * 6 + 6 + 3 * 32)
    blank = Adapter.blank("new", config, family_of(config), sites, AdapterInfo())
    assert all(tensor.is_meta for _, tensor in blank.named_tensors())


def test_its_size_is_that_of_the_checkpoint():
    """docs/adapters.md has the figure."""
    names = {"hidden_size": 1280, "num_hidden_layers": 48, "num_attention_heads": 16}
    config = Wav2Vec2Config(**names, do_stable_layer_norm=True, adapter_attn_dim=16)
    with torch.device("meta"):
        sites = site_table(Wav2Vec2Model(config), torch.nn.Identity())
    mms = Adapter.fresh("a", PRESETS["mms"], family_of(PRESETS["mms"]), sites, AdapterInfo())
    assert mms.parameter_count == 2_151_168


def test_a_new_language_is_trained(tmp_path, capsys):
    """From the checkpoint's own, each tensor of it; and only where there is one."""
    write_tones(tmp_path)
    spoken = [replace(u, text=u.id.split("-")[0]) for u in load_utterances(tmp_path / "data")]
    write_data_dir(tmp_path / "spoken", spoken)

    def train(name):
        base = write_base(tmp_path / name, name)
        data = ("--data", tmp_path / "spoken", "--dev", tmp_path / "spoken")
        fast = ("--steps", 6, "--learning-rate", 0.01, "--trailing-silence", 0)
        out = ("--out", tmp_path / "out" / name)
        return command("train", "--base", base, "--adapter", "mms", *data, *fast, *out)

    assert train("mms") == 0
    model = speechadapt.load(tmp_path / "mms", adapters=[tmp_path / "out" / "mms" / "adapter"])
    sites, config = model.backbone.sites.values(), PRESETS["mms"]
    start = dict(
        Adapter.fresh("a", config, family_of(config), sites, AdapterInfo()).named_tensors()
    )
    trained = {key: t for key, t in model.bank["mms"].named_tensors() if "head" not in key}
    assert set(trained) == set(start)
    assert not any(torch.equal(tensor, start[key]) for key, tensor in trained.items())
    log = (tmp_path / "out" / "mms" / "log.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, log) if "loss" in row]
    assert losses[-1] < losses[0]
    assert train("wav2vec2-stable") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("speechadapt: ") and "points has language; this backbone has" in said


def test_no_network_makes_them():
    info, model = AdapterInfo(), SpeechModel(tiny_backbone("mms"))
    with pytest.raises(ConfigError, match="--hyper"):
        HyperTarget(model, PRESETS["mms"], info, ["be", "ro"], None, 8, 0)


def test_both_ways(model, folder, tmp_path):
    """What is exported is the file that was imported."""
    source = folder / "adapter.ron.safetensors"
    adapter, _ = import_adapter(source, model.backbone)
    export_adapter(adapter, model.backbone, tmp_path / "out")
    before, after = (
        safetensors.torch.load_file(path)
        for path in (source, tmp_path / "out" / "adapter.ron.safetensors")
    )
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    known = json.loads((folder / "vocab.json").read_text())["ron"]
    assert json.loads((tmp_path / "out" / "vocab.json").read_text()) == {"ron": known}
    adapter.head = None
    with pytest.raises(ConfigError, match="no CTC head"):
        export_adapter(adapter, model.backbone, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_only_where_a_checkpoint_has_them(folder):
    path = folder / "adapter.ron.safetensors"
    for name in ("wav2vec2-stable", "ast"):
        with pytest.raises(AdapterError, match="no language adapters in its layers"):
            import_mms(path, tiny_backbone(name))
    config = MmsConfig(points=("out",))
    with pytest.raises(ConfigError, match="at language"):
        sites = tiny_backbone("mms").sites.values()
        Adapter.fresh("a", config, family_of(config), sites, AdapterInfo())


def test_what_does_not_fit_is_refused(model, folder, tmp_path):
    (tmp_path / "vocab.json").write_text((folder / "vocab.json").read_text())
    path = tmp_path / "adapter.ron.safetensors"
    tensors = safetensors.torch.load_file(folder / path.name)
    first = next(key for key in tensors if "norm" in key)

    def refused(changed, words):
        safetensors.torch.save_file(changed, path)
        with pytest.raises(AdapterError, match=words):
            import_mms(path, model.backbone)

    refused({k: t for k, t in tensors.items() if k != first}, f"{first} is not there")
    refused({**tensors, "extra": torch.ones(2)}, "extra is .2., and .* nothing of that name")
    refused({**tensors, first: torch.ones(7)}, f"{first} is .7.")
    refused({**tensors, first: tensors[first] * float("nan")}, "NaN")
    wide = torch.cat((tensors["lm_head.weight"], tensors["lm_head.weight"][:1]))
    refused({**tensors, "lm_head.weight": wide}, "lm_head.weight is")
    other = tmp_path / "adapter.fra.safetensors"
    path.rename(other)
    with pytest.raises(AdapterError, match="fra"):
        import_mms(other, model.backbone)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(AdapterError, match="copy the tokenizer's files"):
        import_mms(other, model.backbone)


def test_command(folder, waves, capsys, tmp_path):
    arguments = ["adapters", "import", str(folder / "adapter.bel.safetensors")]
    arguments += ["--base", str(folder), "--out", str(tmp_path / "bel")]
    assert main(arguments) == 0
    assert "parameters from MMS" in capsys.readouterr().out
    arguments = ["adapters", "export", str(tmp_path / "bel"), "--base", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "for transformers (model.load_adapter)" in capsys.readouterr().out
    assert (tmp_path / "out" / "adapter.bel.safetensors").is_file()
    model = speechadapt.load(folder, adapters=[tmp_path / "bel"])
    routes = ["bel", None, "bel"]
    encoded = model.encode(waves, routes, 0.0)
    found = decode_ctc(model, encoded, routes, [None] * 3, DecodeOptions())
    texts = [hypothesis.text for hypothesis in found]
    assert set(texts[0] + texts[2]) <= set(LETTERS["bel"] + " ")
    assert set(texts[1]) <= set(LETTERS["eng"] + " ") and texts[1]
