"""Losses against plain formulas in float64, gradients, and what cannot be learnt."""

import random

import pytest
import torch
from adapting import add
from conftest import tiny_whisper
from tiny_backbones import tiny_backbone
from tokenizers import Tokenizer, models, trainers

from speechadapt.adapters.registry import preset
from speechadapt.audio import write_flac
from speechadapt.backbones.base import Encoded
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.data import Utterance, write_data_dir
from speechadapt.data.labels import read_labels
from speechadapt.decoding.ctc import decode_ctc
from speechadapt.decoding.options import DecodeOptions
from speechadapt.errors import ConfigError, DataError
from speechadapt.features import Features
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcConfig, CtcHead, pieces_of
from speechadapt.heads.regressor import RegressorConfig, RegressorHead
from speechadapt.model import SpeechModel
from speechadapt.training.augment import spec_augment
from speechadapt.training.config import Augmentation, TrainConfig
from speechadapt.training.examples import Batch, TrainingSet
from speechadapt.training.objectives.classify import ClassifyObjective
from speechadapt.training.objectives.ctc import CtcObjective
from speechadapt.training.objectives.distillation import Distillation, divergence
from speechadapt.training.objectives.features import FeaturesObjective, distance
from speechadapt.training.objectives.regress import RegressObjective
from speechadapt.training.objectives.whisper import WhisperObjective

TRIO = [Utterance(name, "x.wav") for name in "abc"]


def encoded(seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(3, 5, width, generator=generator, dtype=torch.float64)
    return Encoded(states, torch.tensor([5, 2, 3]))


def spread(head, seed=1):
    """In float64, every tensor away from its start, gradients on."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in head.tensors.values():
        tensor.data = tensor.data.double()
        tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.requires_grad_(True)
    return head


def answers(head, batch):
    """What a pooled head is to compute, utterance by utterance."""
    w = {key: tensor.detach() for key, tensor in head.tensors.items()}
    rows = []
    for states, length in zip(batch.states, batch.lengths, strict=True):
        mean = states[:length].mean(0)
        centred = (mean - mean.mean()) / (mean.var(correction=0) + head.config.epsilon).sqrt()
        rows.append(w["proj.weight"] @ (centred * w["norm.weight"] + w["norm.bias"]))
    return torch.stack(rows) + w["proj.bias"]


def grown(head):
    return [key for key, tensor in head.tensors.items() if tensor.grad.abs().sum() > 0]


def test_one_label_is_cross_entropy():
    config = ClassifierConfig(("x", "y", "z"))
    head = spread(ClassifierHead.fresh(config, 6, torch.Generator()))
    objective = ClassifyObjective(head, {"a": ("y",), "b": ("x",), "c": ("y",)})
    targets = objective.targets(Batch(TRIO, None))
    assert targets.tolist() == [1, 0, 1] and objective.count(targets) == 3
    loss = objective.loss(encoded(), targets)
    likely = answers(head, encoded()).softmax(-1)
    expected = -(likely[0, 1].log() + likely[1, 0].log() + likely[2, 1].log())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert grown(head) == list(head.tensors)


def test_several_labels_are_binary_cross_entropies():
    config = ClassifierConfig(("x", "y"), multi_label=True)
    head = spread(ClassifierHead.fresh(config, 6, torch.Generator()))
    objective = ClassifyObjective(head, {"a": ("x", "y"), "b": (), "c": ("y",)})
    targets = objective.targets(Batch(TRIO, None))
    assert targets.tolist() == [[1, 1], [0, 0], [0, 1]] and objective.count(targets) == 6
    p = answers(head, encoded()).sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).sum()
    torch.testing.assert_close(objective.loss(encoded(), targets), expected)


def test_values_are_squared_errors_in_units_of_their_spread():
    config = RegressorConfig("mos", mean=3.5, scale=0.8)
    fresh = RegressorHead.fresh(config, 6, torch.Generator())
    single = Encoded(encoded().states.float(), encoded().lengths)
    assert fresh.values(single).tolist() == [3.5] * 3
    head = spread(fresh)
    objective = RegressObjective(head, {"a": ("4.5",), "b": ("1",), "c": ("3",)})
    targets = objective.targets(Batch(TRIO, None))
    said = 3.5 + 0.8 * answers(head, encoded())[:, 0]
    torch.testing.assert_close(head.values(encoded()), said)
    expected = ((said - torch.tensor([4.5, 1.0, 3.0])) / 0.8).square().sum()
    loss = objective.loss(encoded(), targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert grown(head) == list(head.tensors)


def test_distance_of_states_is_the_formula_over_valid_positions():
    one, other = encoded(0), encoded(1)
    states = one.states.clone().requires_grad_(True)
    expected = 0.0
    for row, length in enumerate(one.lengths):
        clean = other.states[row, :length]
        d = one.states[row, :length] - clean
        expected += d.abs().mean() + d.square().mean()
        expected += (d.square().sum() / clean.square().sum()).sqrt()
    loss = distance(states, other.states, one.lengths)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (states.grad[1, 2:] == 0).all() and (states.grad[1, :2] != 0).all()


def test_equal_states_have_no_distance_and_a_finite_gradient():
    states = encoded().states.clone().requires_grad_(True)
    loss = distance(states, states.detach(), encoded().lengths)
    loss.backward()
    assert loss == 0 and torch.isfinite(states.grad).all()


@pytest.mark.parametrize("name", ["whisper", "wav2vec2", "hubert-stable", "ast"])
def test_clean_features_are_what_the_frozen_encoder_hears(name, waves):
    """With the adapter on the same clean audio the loss is that of the adapter's change alone."""
    backbone = WhisperBackbone(tiny_whisper()) if name == "whisper" else tiny_backbone(name)
    model = SpeechModel(backbone)
    adapter = add(model, "a", preset("pfeiffer"), effect=False).train()
    objective = FeaturesObjective(backbone, 0.1)
    clean = backbone.features(waves, 0.1)
    noisy = backbone.features([wave + 0.01 for wave in waves], 0.1)

    def loss(heard):
        with running(model.bank.call(["a"] * 3, backbone.key_lengths(heard))):
            targets = objective.targets(Batch(TRIO, heard, clean))
            return objective.loss(backbone.encode(heard), targets)

    assert loss(clean) == 0.0  # identity at insertion
    difference = loss(noisy)
    difference.backward()
    assert difference > 0
    ups = [t.grad for key, t in adapter.named_parameters() if key.endswith("up.weight")]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in ups)


def test_divergence_is_kl_at_a_temperature():
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    student.requires_grad_(True)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    loss = divergence(teacher, student, 2.0)
    torch.testing.assert_close(loss, 4.0 * (p * (p / q).log()).sum())
    loss.backward()
    torch.testing.assert_close(student.grad, 2.0 * (q - p).detach())
    assert divergence(teacher, teacher, 3.0) == 0


def test_the_frozen_base_teaches_its_adapter_nothing_at_first(model, waves):
    """The same distributions: no divergence; and with an effect, the formula on plain logits."""
    add(model, "be", preset("pfeiffer"), effect=False)
    plain = WhisperObjective(model.backbone)
    pair = [Utterance(n, "", text=t, language="be") for n, t in (("a", "cat"), ("b", "a"))]
    objective = Distillation(plain, model, None, plain, 0.3, weight=0.7, temperature=2.0)
    assert objective.listener.backbone is model.backbone
    mel = model.backbone.features(waves[:2], 0.3)
    batch = Batch(pair, mel, mel)

    def losses():
        with running(model.bank.call(["be"] * 2, mel.lengths // 2)):
            states = model.backbone.encode(mel)
            targets = plain.targets(batch)
            logits = plain.logits(states, targets)
            both = objective.loss(states, objective.targets(batch))
            return both, plain.loss(states, targets), logits

    both, alone, frozen = losses()
    assert both == alone
    add(model, "be", preset("pfeiffer"))
    both, alone, logits = losses()
    p, q = (frozen / 2).softmax(-1), (logits / 2).softmax(-1)
    torch.testing.assert_close(both, alone + 0.7 * 4 * (p * (p / q).log()).sum())
    assert objective.count(objective.targets(batch)) == plain.count(plain.targets(batch)) == 8


def test_a_ctc_teacher_that_hears_more_silence_is_cut_to_the_student(waves):
    model, teacher = (SpeechModel(tiny_backbone("wav2vec2")) for _ in range(2))
    heads = [CtcHead.fresh(CtcConfig(("_", "|", "a", "b")), 32, torch.Generator()) for _ in "st"]
    for seed, head in enumerate(heads):
        spread(head, seed)
    teacher.backbone.head = heads[1]
    student, its = (CtcObjective(model.backbone, head, 0.0) for head in heads)
    objective = Distillation(student, teacher, None, its, 0.4, weight=1.0, temperature=1.0)
    spoken = [Utterance(name, "", text="ab") for name in "ab"]
    heard, clean = (model.backbone.features(waves[:2], s) for s in (0.0, 0.4))
    batch = Batch(spoken, heard, clean)
    with running(model.bank.call([None] * 2, model.backbone.key_lengths(heard))):
        states = model.backbone.encode(heard)
        both = objective.loss(states, objective.targets(batch))
        alone = student.loss(states, student.targets(batch))
    with running(teacher.bank.call([None] * 2, teacher.backbone.key_lengths(clean))):
        longer = heads[1].log_probs(teacher.backbone.encode(clean))
    expected = alone
    for row, length in enumerate(states.lengths):
        p, q = longer[row, :length].exp(), heads[0].log_probs(states)[row, :length].exp()
        expected = expected + (p * (p / q).log()).sum()
    torch.testing.assert_close(both, expected)


TEXTS = ["the house", "the horse", "a house, the mouse", "hers"]


def test_pieces_of_words_are_those_of_the_library():
    config = pieces_of(TEXTS, 24)
    assert config == pieces_of(TEXTS, 24)  # the same on every run
    assert config.tokens[0] == "<pad>" and len(config.tokens) == 24
    assert any(len(token) > 2 for token in config.tokens)
    tokenizer = Tokenizer(models.BPE())
    words = [f"▁{word.strip(',')}" for text in TEXTS for word in text.split()]
    trainer = trainers.BpeTrainer(vocab_size=23, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    for word in words:
        assert config.spell(word[1:]) == tokenizer.encode(word).tokens
    assert "".join(config.spell("house the hats")) == "▁house▁the▁hats"
    with pytest.raises(ConfigError, match="vocabulary of 5 tokens is too small"):
        pieces_of(TEXTS, 5)


def test_pieces_are_joined_to_words():
    """Through decoding: repeats, blanks, pieces that open a word and such that go on."""
    model = SpeechModel(tiny_backbone("wav2vec2"))
    config = pieces_of(TEXTS, 24)
    spelt = config.spell("the mouse hers")
    path = [i for token in spelt for i in (config.index[token], config.index[token], 0)]
    wanted = torch.nn.functional.one_hot(torch.tensor(path), 24).double() * 50
    head = CtcHead(config, {"proj.weight": torch.eye(24).double(), "proj.bias": torch.zeros(24)})
    head.tensors["proj.bias"].data = head.tensors["proj.bias"].double()
    model.backbone.head = head
    states = Encoded(wanted[None], torch.tensor([len(path)]))
    (found,) = decode_ctc(model, states, [None], [None], DecodeOptions())
    assert found.text == "the mouse hers"
    assert [word.text for word in found.words] == ["the", " mouse", " hers"]


def test_upper_case_vocabularies_are_spelt_in_upper_case():
    config = CtcConfig(("<pad>", "|", "A", "B", "'"))
    assert config.spell("a b'") == ["A", "|", "B", "'"]
    assert CtcConfig(("<pad>", "|", "a", "B")).spell("ab") == ["a", "b"]


@pytest.fixture
def sounds(tmp_path, waves):
    made = []
    for name, wave in zip("abc", waves, strict=True):
        write_flac(tmp_path / f"{name}.flac", wave)
        made.append(Utterance(name, str(tmp_path / f"{name}.flac"), duration=len(wave) / 16_000))
    return made


def test_a_listener_hears_the_same_speed_without_noise_and_masks(tmp_path, sounds):
    """And nothing of what the student hears changes because somebody listens."""
    write_data_dir(tmp_path / "noise", sounds[:1])
    backbone = tiny_backbone("wav2vec2")
    augmentation = Augmentation(speed=(0.9, 1.1), noise=str(tmp_path / "noise"), time_masks=1)
    config = TrainConfig(augmentation=augmentation, trailing_silence=0.1)
    objective = FeaturesObjective(backbone, 0.1)
    alone = TrainingSet(backbone, sounds, config).batch([0, 2], random.Random(0))
    heard = TrainingSet(backbone, sounds, config, objective.listener)
    batch = heard.batch([0, 2], random.Random(0))
    assert alone.clean is None and torch.equal(alone.heard.values, batch.heard.values)
    assert torch.equal(batch.clean.lengths, batch.heard.lengths)
    assert not torch.equal(batch.clean.values, batch.heard.values)
    rng = random.Random(0)
    speeds = [augmentation.speed.index(rng.choice(augmentation.speed))]
    quick = round(16_000 * augmentation.speed[speeds[0]])
    assert batch.clean.lengths[0] == pytest.approx(
        sounds[0].duration * 16_000 * 16_000 / quick + 1600, abs=2
    )


def test_kept_features_are_shared_with_the_listener(sounds):
    backbone, config = tiny_backbone("wav2vec2"), TrainConfig(trailing_silence=0.1)
    examples = TrainingSet(backbone, sounds, config, FeaturesObjective(backbone, 0.1).listener)
    batch = examples.batch([1, 0], random.Random(0))
    assert torch.equal(batch.heard.values, batch.clean.values)
    assert [u.id for u in batch.utterances] == ["b", "a"]


def test_time_masks_of_waves_are_silence():
    waves = Features(torch.ones(2, 1000), torch.tensor([1000, 400]))
    masked = spec_augment(waves, Augmentation(time_masks=3), random.Random(1)).values
    assert 0 < (masked[0] == 0).sum() <= 300
    assert (masked[1, 400:] == 1).all()  # nothing beyond the utterance
    with pytest.raises(ConfigError, match="frequency masks need a spectrogram"):
        spec_augment(waves, Augmentation(frequency_masks=1), random.Random(1))


def test_labels_of_tables_and_manifests(tmp_path, sounds):
    table = {"utt2category": "a dog bark\nb cat\nc\n", "utt2mos": "a 3.5\nb 4\nc 1e0\n"}
    write_data_dir(tmp_path / "data", sounds, table)
    assert read_labels(tmp_path / "data", "utt2category", sounds) == {
        "a": ("dog", "bark"), "b": ("cat",), "c": (),
    }  # fmt: skip
    manifest = tmp_path / "m.jsonl"
    rows = [
        '{"id": "a", "audio": "a.flac", "utt2category": ["dog", "bark"], "utt2mos": 3.5}',
        '{"id": "b", "audio": "b.flac", "utt2category": "cat", "utt2mos": 4, "language": "be"}',
    ]
    manifest.write_text("\n\n".join(rows) + "\n")
    assert read_labels(manifest, "utt2category", sounds[:2])["a"] == ("dog", "bark")
    assert read_labels(manifest, "utt2mos", sounds[:2]) == {"a": ("3.5",), "b": ("4",)}
    with pytest.raises(DataError, match=r"m\.jsonl: a: utt2lang is None"):
        read_labels(manifest, "utt2lang", sounds[:2])
    with pytest.raises(DataError, match="utt2mood: missing"):
        read_labels(tmp_path / "data", "utt2mood", sounds)
    (tmp_path / "data" / "utt2mos").write_text("a 3\nb 4\n")
    with pytest.raises(DataError, match="1 ids missing, 0 unknown"):
        read_labels(tmp_path / "data", "utt2mos", sounds)


@pytest.mark.parametrize(
    ("labels", "word"),
    [(("y",), "label 'y' is none that is learnt"), ((), "has 0 labels"), (("x", "x"), "2 labels")],
)
def test_labels_that_cannot_be_learnt_are_told(labels, word):
    head = ClassifierHead.fresh(ClassifierConfig(("x", "z")), 4, torch.Generator())
    with pytest.raises(DataError, match=f"utterance a: .*{word}"):
        ClassifyObjective(head, {"a": labels}).check(TRIO[0])


@pytest.mark.parametrize("labels", [(), ("1", "2"), ("good",), ("nan",)])
def test_values_that_are_no_numbers_are_told(labels):
    head = RegressorHead.fresh(RegressorConfig("mos"), 4, torch.Generator())
    with pytest.raises(DataError, match=r"utterance a: .* is no number"):
        RegressObjective(head, {"a": labels}).check(TRIO[0])


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (ClassifierConfig, {"labels": ()}),
        (ClassifierConfig, {"labels": ("a", "a")}),
        (ClassifierConfig, {"labels": ("a",), "pooling": "max"}),
        (RegressorConfig, {"value": "mos", "scale": 0.0}),
        (RegressorConfig, {"value": "mos", "mean": float("nan")}),
    ],
)
def test_heads_that_cannot_be_are_refused(config, values):
    with pytest.raises(ConfigError, match="head: "):
        config(**values)
