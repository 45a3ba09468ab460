"""An adapter's head when the adapter is merged or exported: it comes along, or that is refused."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
from tiny_backbones import tiny_backbone, write_vocabulary
from tiny_decoding import write_base
from transformers import ASTForAudioClassification, AutoModelForCTC, Wav2Vec2CTCTokenizer

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.headonly import HeadOnlyConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of
from speechadapt.cli.main import main
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcHead, pieces_of, vocabulary_of
from speechadapt.heads.regressor import RegressorConfig, RegressorHead
from speechadapt.interop.merging import merge
from speechadapt.interop.peft import import_peft
from speechadapt.store import load_adapter, save_adapter

VOCABULARY = vocabulary_of(["вада é", "it's"])
LORA = LoraConfig(rank=2, points=("ffn.in", "ffn.out"), stacks=("encoder",))
LABELS = ClassifierConfig(("music", "noise"), pooling="summary", epsilon=1e-12)


def made(backbone, head_class, head_config, config=LORA):
    """An adapter with a head, both with an effect."""
    info = AdapterInfo(fingerprint=backbone.fingerprint, base="tiny", trailing_silence=0.0)
    generator = torch.Generator().manual_seed(0)
    head = head_class.fresh(head_config, backbone.width, generator)
    sites = backbone.sites.values()
    adapter = Adapter.fresh("be", config, family_of(config), sites, info, head=head)
    for _, tensor in adapter.named_tensors():
        tensor.data.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return adapter


def base_of(name, folder):
    backbone = tiny_backbone(name)
    backbone.model.float().save_pretrained(folder)
    if name != "ast":
        write_vocabulary(folder)
    return str(folder)


def adapters(command, adapter, base, out):
    arguments = (command, adapter, "--base", base, "--out", out)
    return main(["adapters", *map(str, arguments)])


def outputs(model, waves, route):
    head = model.head(route) if route else model.backbone.head
    encoded = model.encode(waves, [route], 0.0)
    return head.log_probs(encoded) if isinstance(head, CtcHead) else head.logits(encoded)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("wav2vec2", LORA),
        ("wav2vec2-stable", LORA),
        ("hubert", HeadOnlyConfig()),
        ("wavlm", LORA),
        ("mms", LORA),
    ],
)
def test_a_merged_ctc_head(name, config, waves, tmp_path):
    """On encoders without a head and in the place of another; here and in transformers."""
    base = base_of(name, tmp_path / "base")
    model = speechadapt.load(base)
    adapter = made(model.backbone, CtcHead, VOCABULARY, config)
    model.bank.add(adapter)
    expected = outputs(model, waves[:1], "be")
    save_adapter(adapter, tmp_path / "be")
    assert adapters("merge", tmp_path / "be", base, tmp_path / "merged") == 0
    ours = speechadapt.load(tmp_path / "merged")
    assert ours.backbone.head.config.tokens == VOCABULARY.tokens
    torch.testing.assert_close(outputs(ours, waves[:1], None), expected, rtol=1e-5, atol=1e-5)
    theirs = AutoModelForCTC.from_pretrained(tmp_path / "merged").eval()
    values = ours.backbone.features(waves[:1], 0.0).values
    with torch.inference_mode():
        logits = theirs(values).logits
    torch.testing.assert_close(logits.log_softmax(-1), expected, rtol=1e-5, atol=1e-5)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids(list(VOCABULARY.tokens)) == list(
        range(len(logits[0, 0]))
    )
    assert theirs.config.pad_token_id == VOCABULARY.blank == tokenizer.pad_token_id


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_merged_classifier(multi_label, waves, tmp_path):
    base = base_of("ast", tmp_path / "base")
    model = speechadapt.load(base)
    config = dataclasses.replace(LABELS, multi_label=multi_label)
    adapter = made(model.backbone, ClassifierHead, config)
    model.bank.add(adapter)
    expected = outputs(model, waves[:1], "be")
    save_adapter(adapter, tmp_path / "be")
    assert adapters("merge", tmp_path / "be", base, tmp_path / "merged") == 0
    ours = speechadapt.load(tmp_path / "merged")
    assert ours.backbone.head.config == config
    torch.testing.assert_close(outputs(ours, waves[:1], None), expected, rtol=1e-5, atol=1e-5)
    theirs = ASTForAudioClassification.from_pretrained(tmp_path / "merged").eval()
    assert theirs.config.label2id == {"music": 0, "noise": 1}
    with torch.inference_mode():
        logits = theirs(ours.backbone.features(waves[:1], None).values.mT).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "head", "config", "word"),
    [
        ("wav2vec2", CtcHead, dataclasses.replace(VOCABULARY, layers=3), "reads all layers"),
        ("wav2vec2", CtcHead, pieces_of(["ab ab", "abc"], 6), "pieces of words"),
        (
            "wav2vec2",
            ClassifierHead,
            ClassifierConfig(("a", "b")),
            "checkpoints of wav2vec2 have no",
        ),
        ("ast", RegressorHead, RegressorConfig("mos"), "transformer have no place"),
        ("ast", ClassifierHead, dataclasses.replace(LABELS, pooling="mean"), "summary tokens"),
        ("ast", ClassifierHead, dataclasses.replace(LABELS, epsilon=1e-5), "epsilon"),
    ],
)
def test_a_head_that_no_checkpoint_holds_is_not_lost_without_a_word(name, head, config, word):
    backbone = tiny_backbone(name)
    with pytest.raises(ConfigError, match=rf"adapter 'be': its \w+ head would be lost.*{word}"):
        merge(backbone, made(backbone, head, config))


def test_a_head_on_whisper_is_refused_by_the_command(tmp_path, capsys):
    base = write_base(tmp_path / "base")
    save_adapter(made(speechadapt.load(base).backbone, CtcHead, VOCABULARY), tmp_path / "be")
    assert adapters("merge", tmp_path / "be", base, tmp_path / "no") == 2
    err = capsys.readouterr().err
    assert "checkpoints of whisper have no place for it" in err and "Traceback" not in err
    assert not (tmp_path / "no").exists()


def test_a_head_goes_out_beside_peft_and_comes_back(waves, tmp_path, capsys):
    base = base_of("wav2vec2", tmp_path / "base")
    model = speechadapt.load(base)
    adapter = made(model.backbone, CtcHead, VOCABULARY)
    save_adapter(adapter, tmp_path / "be")
    assert adapters("export", tmp_path / "be", base, tmp_path / "peft") == 0
    assert "its ctc head in head.safetensors" in capsys.readouterr().out
    assert adapters("import", tmp_path / "peft", base, tmp_path / "again") == 0
    model.bank.add(adapter)
    expected = outputs(model, waves[:1], "be")
    back = model.bank.add(load_adapter(tmp_path / "again", model.backbone))
    assert back.head.config == VOCABULARY
    torch.testing.assert_close(outputs(model, waves[:1], "be"), expected, rtol=1e-5, atol=1e-5)


def test_broken_heads_beside_peft_are_told(tmp_path):
    backbone = tiny_backbone("wav2vec2")
    save_adapter(made(backbone, CtcHead, VOCABULARY), tmp_path / "be")
    base = base_of("wav2vec2", tmp_path / "base")
    assert adapters("export", tmp_path / "be", base, tmp_path / "peft") == 0
    path, sidecar = tmp_path / "peft" / "head.safetensors", tmp_path / "peft" / "speechadapt.json"
    tensors, described = safetensors.torch.load_file(path), json.loads(sidecar.read_text())

    def refused(word):
        with pytest.raises(AdapterError, match=word):
            import_peft(tmp_path / "peft", backbone)

    safetensors.torch.save_file({"proj.weight": tensors["proj.weight"]}, path)
    refused(r"head.safetensors: holds .* asks for .*proj.bias")
    path.unlink()
    refused(r"head.safetensors: missing")
    sidecar.write_text(json.dumps({**described, "head": {"kind": "poet"}}))
    refused("kind is 'poet'")
    sidecar.write_text(json.dumps({**described, "head": 3}))
    refused("'head' is no dict")
