"""Training: learns, never touches the base, and is the same whether it was interrupted or not."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from conftest import tiny_whisper
from killing import Killed, killed_at

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.conv import ConformerConfig
from speechadapt.adapters.gated import GatedConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of, preset
from speechadapt.adapters.sparse import SparseConfig
from speechadapt.audio import write_flac
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import running
from speechadapt.data import Utterance
from speechadapt.data.batching import batch_stream, bucketed_batches
from speechadapt.errors import ConfigError, DataError
from speechadapt.features import Features
from speechadapt.lowbit import BITS
from speechadapt.model import SpeechModel
from speechadapt.store import load_adapter
from speechadapt.training.augment import change_speed, mix_at_snr, spec_augment
from speechadapt.training.config import Augmentation, TrainConfig
from speechadapt.training.examples import Batch, TrainingSet
from speechadapt.training.objectives.whisper import WhisperObjective
from speechadapt.training.target import AdapterTarget, FullTarget
from speechadapt.training.trainer import Trainer

CONFIG = TrainConfig(
    steps=8, batch_seconds=6.0, trailing_silence=0.2, checkpoint_every=3, eval_every=4
)


@pytest.fixture
def utterances(tmp_path, waves):
    texts = ["a cat", "dog", "the red house", "sun"]
    made = []
    for index, text in enumerate(texts):
        path = tmp_path / "audio" / f"{index}.flac"
        write_flac(path, np.roll(waves[index % 3], 100 * index))
        seconds = len(waves[index % 3]) / 16_000
        made.append(Utterance(f"u{index}", str(path), text=text, language="be", duration=seconds))
    return made


HOULSBY = dataclasses.replace(preset("houlsby"), bottleneck=8, dropout=0.1)


def make_trainer(
    folder, utterances, config=CONFIG, full=False, dev=True, chosen=HOULSBY, bits=None
):
    model = SpeechModel(WhisperBackbone(tiny_whisper(torch.float32)))
    if full:
        target = FullTarget(model)
    else:
        adapter = Adapter.fresh(
            "be", chosen, family_of(chosen), model.backbone.sites.values(), AdapterInfo()
        )
        adapter.info.fingerprint = model.backbone.fingerprint
        adapter.bits = bits
        target = AdapterTarget(model.bank.add(adapter))
    examples = TrainingSet(model.backbone, utterances, config)
    objective = WhisperObjective(model.backbone)
    evaluations = []

    def dev_error():
        evaluations.append(1)
        states = [p.detach().double().sum().item() for _, p in target.named_parameters()]
        return abs(sum(states)) % 1.0  # any figure that depends on the parameters

    return Trainer(
        model, target, examples, objective, config, folder, {}, dev_error if dev else None
    )


def adapter_bytes(folder):
    return (folder / "adapter" / "adapter.safetensors").read_bytes()


@pytest.mark.parametrize("bits", [None, 1])
def test_loss_falls_and_the_base_stays(tmp_path, utterances, bits):
    config = dataclasses.replace(CONFIG, steps=30, learning_rate=5e-3)
    trainer = make_trainer(tmp_path / "run", utterances, config, dev=False, bits=bits)
    before = trainer.model.checksum()
    trainer.run()
    assert trainer.model.checksum() == before
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        if "loss" in line
    ]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("kill_at", [1, 3, 5, 7])
def test_resumed_run_ends_with_the_same_bytes(tmp_path, utterances, kill_at):
    make_trainer(tmp_path / "whole", utterances).run()
    with pytest.raises(Killed), killed_at(kill_at):
        make_trainer(tmp_path / "cut", utterances).run()
    make_trainer(tmp_path / "cut", utterances).run()
    assert adapter_bytes(tmp_path / "cut") == adapter_bytes(tmp_path / "whole")
    whole, cut = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    assert cut == whole


@pytest.mark.parametrize(
    ("chosen", "bits"),
    [
        (ConformerConfig(bottleneck=4, kernel=3, dropout=0.1), None),  # has running statistics
        (GatedConfig(bottleneck=4, budget_weight=0.1), None),  # draws noise, adds to the loss
        (LoraConfig(rank=2, start="pissa", dropout=0.1), None),  # has tensors that are not trained
        (SparseConfig(bottleneck=8, density=0.3, dropout=0.1), 8),  # chooses its weights
        (HOULSBY, 1),  # computes with other weights than it learns
    ],
)
def test_other_runs_resume_too(tmp_path, utterances, chosen, bits):
    make_trainer(tmp_path / "whole", utterances, chosen=chosen, bits=bits).run()
    with pytest.raises(Killed), killed_at(5):
        make_trainer(tmp_path / "cut", utterances, chosen=chosen, bits=bits).run()
    make_trainer(tmp_path / "cut", utterances, chosen=chosen, bits=bits).run()
    assert adapter_bytes(tmp_path / "cut") == adapter_bytes(tmp_path / "whole")


def weights_of(adapter):
    """What the adapter computes with."""
    return {
        f"{site}/{key}": tensor.detach()
        for site in adapter.tensors
        for key, tensor in adapter.weights(site, torch.device("cpu")).items()
    }


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "chosen",
    [
        HOULSBY,
        LoraConfig(rank=2, start="pissa"),  # measured from tensors that are rounded too
        SparseConfig(bottleneck=8, density=0.3),
    ],
)
def test_in_few_bits_what_was_evaluated_is_what_is_stored(
    tmp_path, utterances, waves, chosen, bits
):
    config = dataclasses.replace(CONFIG, steps=4, eval_every=2)
    whole = make_trainer(tmp_path / "whole", utterances, config, chosen=chosen, bits=bits)
    evaluated = []

    def dev_error():  # the last evaluation is the best
        evaluated.append(
            (weights_of(whole.target.adapter), whole.model.encode(waves, ["be"] * 3, 0.2))
        )
        return 1.0 / len(evaluated)

    whole.dev_error = dev_error
    whole.run()
    weights, encoded = evaluated[-1]
    stored = load_adapter(tmp_path / "whole" / "adapter", whole.model.backbone)
    assert stored.bits is None
    for key, tensor in weights_of(stored).items():
        assert torch.equal(tensor, weights[key]), key
    whole.model.bank.add(stored)
    torch.testing.assert_close(
        whole.model.encode(waves, ["be"] * 3, 0.2).states, encoded.states, rtol=1e-5, atol=1e-5
    )
    assert any(not torch.equal(tensor, evaluated[0][0][key]) for key, tensor in weights.items())


def test_a_sparse_run_keeps_what_matters_to_its_data(tmp_path, utterances):
    """Chosen once, at the start; not again for an adapter that starts from another."""
    config = dataclasses.replace(CONFIG, steps=1)
    chosen = SparseConfig(bottleneck=8, density=0.3)

    def masks(trainer):
        named = trainer.target.adapter.named_tensors()
        return {key: tensor.clone() for key, tensor in named if key.endswith("mask")}

    first = make_trainer(tmp_path / "first", utterances, config, chosen=chosen)
    fresh = masks(first)
    first.run()
    scored = masks(first)
    assert all(not torch.equal(mask, fresh[key]) for key, mask in scored.items())
    second = make_trainer(tmp_path / "second", utterances[:2], config, chosen=chosen)
    second.target.adapter.start_from(first.target.adapter)
    second.run()
    assert all(torch.equal(mask, scored[key]) for key, mask in masks(second).items())


def test_a_finished_run_is_not_trained_again(tmp_path, utterances):
    make_trainer(tmp_path / "run", utterances).run()
    first = adapter_bytes(tmp_path / "run")
    with killed_at(0):
        assert make_trainer(tmp_path / "run", utterances).run().steps == 8
    assert adapter_bytes(tmp_path / "run") == first


def test_other_settings_are_refused(tmp_path, utterances):
    make_trainer(tmp_path / "run", utterances).run()
    trainer = make_trainer(tmp_path / "run", utterances)
    trainer.settings = {"training": 1}
    with pytest.raises(ConfigError, match="other settings"):
        trainer.run()


def test_only_the_newest_checkpoint_stays(tmp_path, utterances):
    make_trainer(tmp_path / "run", utterances).run()
    assert [path.name for path in sorted((tmp_path / "run").glob("state-*"))] == ["state-000008"]
    assert not list((tmp_path / "run").glob(".*"))


def test_augmented_runs_resume_too(tmp_path, utterances):
    augmentation = Augmentation(speed=(0.9, 1.1), time_masks=1, frequency_masks=1)
    config = dataclasses.replace(CONFIG, augmentation=augmentation, accumulate=2)
    make_trainer(tmp_path / "whole", utterances, config).run()
    with pytest.raises(Killed), killed_at(5):
        make_trainer(tmp_path / "cut", utterances, config).run()
    make_trainer(tmp_path / "cut", utterances, config).run()
    assert adapter_bytes(tmp_path / "cut") == adapter_bytes(tmp_path / "whole")


def test_accumulating_equals_one_large_batch(tmp_path, utterances):
    """Gradients of two half batches add up to those of the whole."""
    chosen = dataclasses.replace(CONFIG, accumulate=1)
    one = make_trainer(tmp_path / "one", utterances, chosen)
    two = make_trainer(tmp_path / "two", utterances, chosen)
    for trainer in (one, two):
        trainer.target.train(True)
        trainer.target.adapter.training = False  # no dropout: its masks depend on the batch
    loss_one = one._step(0, [[0, 1, 2, 3]])
    loss_two = two._step(0, [[0, 1], [2, 3]])
    assert loss_one == pytest.approx(loss_two, rel=1e-5)


def test_patience_stops_the_run(tmp_path, utterances):
    config = dataclasses.replace(CONFIG, steps=40, eval_every=1, patience=2)
    trainer = make_trainer(tmp_path / "run", utterances, config)
    errors = iter([0.5, 0.4, 0.6, 0.7, 0.1])
    trainer.dev_error = lambda: next(errors)
    result = trainer.run()
    assert (result.steps, result.best_step, result.best_error) == (4, 2, 0.4)


def test_full_fine_tuning_writes_a_base(tmp_path, utterances):
    trainer = make_trainer(tmp_path / "run", utterances, full=True, dev=False)
    before = trainer.model.checksum()
    trainer.run()
    assert trainer.model.checksum() != before
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_targets_ask_for_text_and_end_only(model):
    pair = [
        Utterance("a", "", text="ab", language="be"),
        Utterance("b", "", text="a", language="ro"),
    ]
    targets = WhisperObjective(model.backbone).targets(Batch(pair, None))
    assert targets.inputs.tolist() == [[41, 42, 44, 46, 0, 1, 2], [41, 43, 44, 46, 0, 1, 40]]
    assert targets.labels.tolist() == [
        [-100, -100, -100, 0, 1, 2, 40],
        [-100, -100, -100, 0, 1, 40, -100],
    ]


def test_loss_is_cross_entropy_of_plain_transformers(model, waves):
    objective = WhisperObjective(model.backbone)
    pair = [
        Utterance("a", "", text="cat", language="be"),
        Utterance("b", "", text="a", language="ro"),
    ]
    mel = model.backbone.features(waves[:2], None)
    targets = objective.targets(Batch(pair, mel))
    with running(model.bank.call([None, None])):
        ours = objective.loss(model.backbone.encode(mel), targets)
    theirs = model.backbone.model(
        input_features=mel.values.double(), decoder_input_ids=targets.inputs
    ).logits
    expected = torch.nn.functional.cross_entropy(
        theirs.flatten(0, 1), targets.labels.flatten(), ignore_index=-100, reduction="sum"
    )
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("utterance", "words"),
    [
        (Utterance("x", "", language="be"), "no transcript"),
        (Utterance("x", "", text="a", language="xx"), "'xx' is not one of Whisper's"),
        (Utterance("x", "", text="a" * 60, language="be"), "60|tokens long"),
    ],
)
def test_bad_references_are_named(model, utterance, words):
    with pytest.raises(DataError, match=words):
        WhisperObjective(model.backbone).tokens(utterance)


def test_long_utterances_and_empty_sets_are_refused(model):
    with pytest.raises(DataError, match=r"utterance u: 31\.0 s long"):
        TrainingSet(model.backbone, [Utterance("u", "x.wav", text="a", duration=31.0)], CONFIG)
    with pytest.raises(DataError, match="no utterances"):
        TrainingSet(model.backbone, [], CONFIG)


def test_batches_cover_every_utterance_within_the_budget():
    rng = random.Random(0)
    seconds = [rng.uniform(0.5, 9.0) for _ in range(200)]
    for epoch in range(3):
        batches = bucketed_batches(seconds, 20.0, 7, epoch)
        assert sorted(index for batch in batches for index in batch) == list(range(200))
        for batch in batches:
            assert len(batch) == 1 or max(seconds[i] for i in batch) * len(batch) <= 20.0
    assert bucketed_batches(seconds, 20.0, 7, 0) == bucketed_batches(seconds, 20.0, 7, 0)
    assert bucketed_batches(seconds, 20.0, 7, 0) != bucketed_batches(seconds, 20.0, 7, 1)
    stream = batch_stream([1.0, 2.0], 1.0, 0)
    assert sorted(next(stream) + next(stream)) == [0, 1]


def test_learning_rate_rises_and_falls():
    config = TrainConfig(steps=10, warmup=0.2, learning_rate=1.0)
    assert [round(config.rate(step), 3) for step in range(10)] == [
        0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"warmup": 1.5}, {"learning_rate": float("nan")}, {"clip": 0.0}]
)
def test_train_config_refuses(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TrainConfig(**changes)


def test_noise_is_mixed_at_the_asked_ratio(waves):
    noise = np.random.default_rng(0).standard_normal(5_000).astype(np.float32)
    mixed = mix_at_snr(waves[0], noise, 7.0, random.Random(0))
    added = mixed - waves[0]
    ratio = 10 * np.log10(np.mean(waves[0].astype(float) ** 2) / np.mean(added.astype(float) ** 2))
    assert ratio == pytest.approx(7.0, abs=0.01)
    assert np.array_equal(mix_at_snr(waves[0], noise * 0, 7.0, random.Random(0)), waves[0])


def test_speed_changes_the_length(waves):
    assert len(change_speed(waves[0], 1.1)) == pytest.approx(len(waves[0]) / 1.1, abs=2)
    assert change_speed(waves[0], 1.0) is waves[0]


def test_spec_augment_masks_within_the_utterance():
    mel = Features(torch.ones(2, 80, 100), torch.tensor([100, 40]))
    masked = spec_augment(mel, Augmentation(time_masks=2, frequency_masks=2), random.Random(3))
    assert torch.equal(mel.values, torch.ones(2, 80, 100))
    assert 0 < (masked.values == 0).sum() < masked.values.numel() / 2
    assert set(masked.values.unique().tolist()) == {0.0, 1.0}
