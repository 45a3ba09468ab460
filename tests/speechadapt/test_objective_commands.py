"""``train`` with every objective but Whisper's, and ``classify`` with what it makes."""

import json

import pytest
import soundfile
import torch
from killing import Killed, killed_at
from tones import command, write_base, write_tones
from whisper_files import tiny_whisper, write_transformers

from speechadapt.data import load_utterances, write_data_dir, write_manifest
from speechadapt.data.utterance import Utterance

BASES = ("whisper", "wav2vec2", "ast")
SINGLE = ("--objective", "classify", "--labels", "utt2pitch")
SEVERAL = ("--objective", "classify", "--labels", "utt2tones", "--multi-label")
VALUES = ("--objective", "regress", "--labels", "utt2level")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tones and one tiny base of each kind."""
    folder = tmp_path_factory.mktemp("home")
    write_tones(folder)
    for name in BASES:
        write_base(folder / name, name)
    spoken = [
        Utterance(**{**vars(u), "text": {"l": "a", "h": "b", "b": "a b"}[u.id[0]]})
        for u in load_utterances(folder / "data")
    ]
    write_data_dir(folder / "spoken", spoken)
    return folder


def train(home, base, out, *extra, data="data"):
    sets = ("--data", home / data, "--dev", home / data, "--out", out)
    fast = ("--steps", 20, "--eval-every", 10, "--learning-rate", 0.01, "--batch-seconds", 10)
    small = ("--adapter", "pfeiffer", "--bottleneck", 4, "--trailing-silence", 0)
    return command("train", "--base", home / base, *sets, *fast, *small, *extra)


def probe(home, base, out, *extra):
    """A head alone."""
    sets = ("--data", home / "data", "--dev", home / "data", "--out", out, "--base", home / base)
    fast = ("--steps", 40, "--learning-rate", 0.01, "--batch-seconds", 10)
    silence = ("--trailing-silence", 0)
    return command("train", *sets, *fast, *silence, "--adapter", "head", *extra)


@pytest.mark.parametrize("base", BASES)
def test_without_a_choice_the_best_of_the_base_is_trained(home, base, tmp_path):
    few = ("--data", home / "data", "--base", home / base, "--steps", 1, *SINGLE)
    assert command("train", *few, "--out", tmp_path / "best") == 0
    best = {"whisper": "convpass", "wav2vec2": "conformer", "ast": "bottleneck"}[base]
    assert description(tmp_path / "best")["config"]["method"] == best
    # from another adapter: as that is
    lora = ("--adapter", "lora", "--rank", 3)
    assert command("train", *few, *lora, "--out", tmp_path / "lora") == 0
    start = ("--init", tmp_path / "lora" / "adapter")
    assert command("train", *few, *start, "--out", tmp_path / "more") == 0
    started, more = (description(tmp_path / name)["config"] for name in ("lora", "more"))
    assert (more["method"], more["rank"]) == ("lora", 3) and more == started


def description(out):
    return json.loads((out / "adapter" / "speechadapt.json").read_text())


def result(out):
    return json.loads((out / "result.json").read_text())


def classified(home, base, out, capsys, *extra):
    """Cells of each line, by id."""
    capsys.readouterr()
    adapter = ("--base", home / base, "--adapter", out / "adapter")
    assert command("classify", home / "data", *adapter, *extra) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: cells[1:] for cells in lines}


@pytest.mark.parametrize("base", BASES)
def test_one_label_is_learnt(home, base, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(home, base, out, *SINGLE) == 0
    assert result(out)["metric"] == "error_rate" and result(out)["best_error"] == 0.0
    assert result(out)["objective"] == "classify"
    found = classified(home, base, out, capsys)
    assert all(name.startswith(label) for name, (label, _) in found.items()) and len(found) == 9
    described = description(out)
    assert described["info"]["kind"] == "task" and described["config"]["stacks"] == ["encoder"]
    pooling = "summary" if base == "ast" else "mean"
    assert described["head"]["pooling"] == pooling


@pytest.mark.parametrize("base", BASES)
def test_several_labels_are_learnt_by_a_head_alone(home, base, tmp_path, capsys):
    out = tmp_path / "run"
    assert probe(home, base, out, *SEVERAL, "--layer-weights") == 0
    assert result(out)["metric"] == "map_error" and result(out)["best_error"] == 0.0
    found = classified(home, base, out, capsys, "--top", 2)
    for name, (first, _, second, probability) in found.items():
        assert first == name.split("-")[0] or {first, second} == {"low", "high"}
        assert 0 < float(probability) < 1


def test_what_ast_learns_can_be_merged(home, tmp_path, capsys):
    """Its new head is one as its checkpoints have."""
    out, merged = tmp_path / "run", tmp_path / "merged"
    assert probe(home, "ast", out, *SEVERAL, "--steps", 2) == 0
    found = classified(home, "ast", out, capsys, "--top", 2)
    base = ("--base", home / "ast", "--out", merged)
    assert command("adapters", "merge", out / "adapter", *base) == 0
    capsys.readouterr()
    assert command("classify", home / "data", "--base", merged, "--top", 2) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {cells[0]: cells[1:] for cells in lines} == found


def test_values_are_learnt(home, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(home, "whisper", out, *VALUES, "--steps", 40) == 0
    errors = result(out)["errors"]
    assert result(out)["metric"] == "mse" and errors[-1][1] < 0.5 * 0.0067  # the variance
    found = classified(home, "whisper", out, capsys)
    assert all(abs(float(v) - 0.1 * (1 + int(n[-1]) // 3)) < 0.1 for n, (v,) in found.items())
    assert command("classify", home / "data", "--base", home / "whisper", "--adapter",
                   out / "adapter", "--format", "json") == 0  # fmt: skip
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert set(row) == {"id", "seconds", "values"} and set(row["values"]) == {"level"}


@pytest.mark.parametrize("name", ["train", "finetune", "classify"])
def test_help_has_examples(name, capsys):
    with pytest.raises(SystemExit):
        command(name, "--help")
    assert "examples:" in capsys.readouterr().out


def test_noise_is_undone_without_transcripts(home, tmp_path):
    noise = tmp_path / "noise"
    noise.mkdir()
    soundfile.write(noise / "n.wav", 0.1 * torch.randn(16_000).numpy(), 16_000)
    write_manifest(noise / "n.jsonl", [Utterance("n", str(noise / "n.wav"))])
    out = tmp_path / "run"
    extra = ("--objective", "features", "--noise", noise / "n.jsonl", "--snr", 0, 0)
    assert train(home, "wav2vec2", out, *extra, "--eval-every", 4) == 0
    errors = [error for _, error in result(out)["errors"]]
    assert result(out)["metric"] == "loss" and min(errors) < 0.9 * errors[0]
    described = description(out)
    assert described["info"]["kind"] == "noise" and "head" not in described
    assert described["info"]["language"] is None


def test_ctc_over_pieces_of_words(home, tmp_path, capsys):
    out = tmp_path / "run"
    bpe = ("--vocabulary", "bpe", "--vocabulary-size", 6, "--layer-weights", "--steps", 40)
    assert train(home, "wav2vec2", out, *bpe, data="spoken") == 0
    described = description(out)
    assert described["head"]["tokens"] == ["<pad>", "a", "b", "▁", "▁a", "▁b"]
    capsys.readouterr()
    adapter = ("--base", home / "wav2vec2", "--adapter", out / "adapter")
    assert command("transcribe", home / "spoken", *adapter) == 0
    said = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert len(said) == 9 and set("".join(said.values())) <= set("ab ")
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_ctc_on_whispers_encoder(home, tmp_path):
    """A preset that also has places in the decoder is kept to the encoder."""
    out = tmp_path / "run"
    assert train(home, "whisper", out, "--objective", "ctc", "--steps", 3, data="spoken") == 0
    described = description(out)
    assert described["config"]["stacks"] == ["encoder"] and described["info"]["kind"] == "language"


def test_a_teacher_with_an_adapter_teaches_its_vocabulary(home, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(home, "wav2vec2", first, data="spoken") == 0
    teacher = ("--teacher", home / "wav2vec2", "--teacher-adapter", first / "adapter")
    weighed = ("--teacher-weight", 0.5, "--temperature", 2, "--name", "first")
    assert train(home, "wav2vec2", second, *teacher, *weighed, data="spoken") == 0
    settings = result(second)
    assert settings["teacher_weight"] == 0.5 and settings["metric"] == "wer"
    refusal = (*teacher, "--vocabulary", "bpe")
    assert train(home, "wav2vec2", tmp_path / "third", *refusal, data="spoken") == 2


def test_the_frozen_whisper_teaches_and_a_teacher_may_need_other_features(home, tmp_path, capsys):
    language = ("--language", "be", "--steps", 4)
    large = tmp_path / "large"
    bins = tiny_whisper(
        vocab_size=51865, max_source_positions=1500, max_target_positions=64, num_mel_bins=128
    )
    write_transformers(large, bins)
    for name, teacher in (("base", home / "whisper"), ("large", large)):
        extra = ("--teacher", teacher, *language)
        assert train(home, "whisper", tmp_path / name, *extra, data="spoken") == 0
    capsys.readouterr()
    extra = ("--teacher", home / "ast", *language)
    assert train(home, "whisper", tmp_path / "out", *extra, data="spoken") == 2
    assert "no Whisper, so it cannot teach one" in capsys.readouterr().err
    extra = ("--teacher", home / "wav2vec2")
    assert train(home, "wav2vec2", tmp_path / "out", *extra, data="spoken") == 2
    assert "no head, and teaching ctc needs a ctc head" in capsys.readouterr().err


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A base with a CTC head over small letters."""
    base = write_base(tmp_path_factory.mktemp("teacher") / "base", "wav2vec2-stable")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdef'"]
    (base / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    return base


@pytest.mark.parametrize("chosen", ["classify", "regress", "features", "distillation"])
def test_a_resumed_run_ends_with_the_same_bytes(home, teacher, tmp_path, chosen):
    extra = {
        "classify": (*SINGLE, "--dropout", 0.1),
        "regress": (*VALUES, "--layer-weights"),
        "features": ("--objective", "features", "--noise", home / "data", "--time-masks", 1),
        "distillation": ("--teacher", teacher),
    }[chosen]
    short = ("--steps", 5, "--eval-every", 3, "--checkpoint-every", 2, "--batch-seconds", 1)
    data = "spoken" if chosen == "distillation" else "data"

    def run(name):
        assert train(home, "wav2vec2", tmp_path / name, *extra, *short, data=data) == 0
        return (tmp_path / name / "adapter" / "adapter.safetensors").read_bytes()

    with pytest.raises(Killed), killed_at(3):
        run("cut")
    assert run("cut") == run("whole")


def test_what_makes_no_sense_is_refused(home, tmp_path, capsys):
    def refused(base, *extra, data="data"):
        assert train(home, base, tmp_path / "out", *extra, data=data) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("speechadapt: ")
        return said

    features = ("--objective", "features")
    assert "without --noise there is none" in refused("whisper", *features)
    assert "belongs to classify and regress" in refused("wav2vec2", "--labels", "utt2pitch")
    assert "classify needs --labels" in refused("ast")
    assert "utt2mood: missing" in refused("ast", "--labels", "utt2mood")
    assert "belongs to classify" in refused("wav2vec2", *VALUES, "--multi-label")
    assert "belongs to ctc" in refused("whisper", "--vocabulary", "bpe")
    assert "only --vocabulary bpe" in refused("wav2vec2", "--vocabulary-size", 9, data="spoken")
    small = ("--vocabulary", "bpe", "--vocabulary-size", 2)
    assert "2 tokens is too small" in refused("wav2vec2", *small, data="spoken")
    assert "layer-weights: the objective whisper" in refused("whisper", "--layer-weights")
    assert probe(home, "whisper", tmp_path / "out") == 2
    assert "the objective whisper has no head, so nothing" in capsys.readouterr().err
    assert "no transcript" in refused("wav2vec2")
    decoder = ("--stacks", "decoder")
    assert "reads the encoder alone" in refused("whisper", *SINGLE, *decoder)
    assert "--temperature: say with --teacher" in refused("whisper", "--temperature", 2)
    assert "--temperature 0.0: give" in refused(
        "whisper", "--teacher", home / "whisper", "--temperature", 0
    )
    assert "belongs to whisper and ctc" in refused("ast", *SINGLE, "--teacher", "x")
    same = tmp_path / "same"
    write_data_dir(
        same, load_utterances(home / "data"),
        {"utt2pitch": "".join(f"{u.id} low\n" for u in load_utterances(home / "data"))},
    )  # fmt: skip
    assert "nothing to tell apart" in refused("ast", *SINGLE, data=same)
    assert "label 'both' is none that is learnt" in refused(
        "ast", *SINGLE, "--data", _only(home, tmp_path, "low", "high")
    )
    assert not (tmp_path / "out").exists()


def _only(home, folder, *kinds):
    """The data without some kinds."""
    chosen = [u for u in load_utterances(home / "data") if u.id.split("-")[0] in kinds]
    lines = [f"{u.id} {u.id.split('-')[0]}\n" for u in chosen]
    write_data_dir(folder / "some", chosen, {"utt2pitch": "".join(lines)})
    return folder / "some"
