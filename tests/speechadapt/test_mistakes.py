"""Mistakes on the command line: one sentence, exit code 2, and nothing is lost or half done."""

import pytest
from tones import command, write_base, write_tones

LABELS = ("--objective", "classify", "--labels", "utt2pitch", "--adapter", "head", "--steps", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tones, and a tiny base."""
    folder = tmp_path_factory.mktemp("home")
    write_tones(folder)
    write_base(folder / "base", "wav2vec2")
    return folder


@pytest.fixture
def refused(home, capsys):
    """Runs a command that must fail, and gives the sentence."""

    def refuse(name, *options):
        inputs = (
            (home / "data",) if name in ("transcribe", "classify") else ("--data", home / "data")
        )
        assert command(name, *inputs, "--base", home / "base", *options) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("speechadapt: ")
        return said

    return refuse


def test_where_nothing_can_be_written(home, refused, tmp_path):
    below = tmp_path / "file" / "below"
    (tmp_path / "file").write_text("old")
    for name in ("train", "finetune"):
        for out in (tmp_path / "file", below):
            assert "file is a file, so nothing lies below" in refused(name, "--out", out)
    for out in (below, below / "a.txt", f"{below}/"):
        assert "file is a file, so nothing lies below" in refused("transcribe", "--out", out)
    (tmp_path / "text").mkdir()
    assert "text: is a folder and" in refused("transcribe", "--format", "kaldi", "--out", tmp_path)
    assert (tmp_path / "file").read_text() == "old"


def test_a_run_never_replaces_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("years of work")
    said = refused("train", "--out", tmp_path, *LABELS)
    assert "adapter: holds thesis.txt, which would be lost" in said
    assert (tmp_path / "adapter" / "thesis.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("adapter: {bottleneck: 4.5}", "bottleneck is 4.5, expected a whole number"),
        ("adapter: {bottleneck: true}", "bottleneck is True, expected a whole number"),
        ("adapter: {bottleneck: 1000000000}", "expected 65536 at most"),
        ("adapter: {points: ffn.out}", "points is 'ffn.out', expected a list, each a text"),
        ("adapter: {points: [1]}", "points is [1], expected a list, each a text"),
        ("adapter: {stacks: encoder}", "stacks is 'encoder', expected a list, each a text or noth"),
        ("adapter: {layer_norm: maybe}", "layer_norm is 'maybe', expected true or false"),
        ("adapter: {top_layers: 1.5}", "top_layers is 1.5, expected a whole number or nothing"),
        ("adapter: {scale: big}", "scale is 'big', expected a number"),
        ("adapter: {scale: .nan}", "scale is nan, expected a number"),
        ("adapter: {scale: 0}", "scale is 0, expected another number: with 0 nothing would be"),
        ("adapter: {activation: [gelu]}", "activation is ['gelu'], expected a text"),
        ("adapter: {1: 2}", "adapter has unknown 1"),
        ("adapter: 5", "expected sections"),
        ("training: {steps: 2.5}", "steps is 2.5, expected a whole number"),
        ("training: {seed: x}", "seed is 'x', expected a whole number"),
        ("training: {seed: 1.5}", "seed is 1.5, expected a whole number"),
        ("training: {seed: 99999999999999999999}", "at most 32 bits"),
        ("training: {accumulate: 1.5}", "accumulate is 1.5, expected a whole number"),
        ("training: {augmentation: 5}", "training has unknown augmentation"),
        ("training: {learning_rate: fast}", "learning_rate is 'fast', expected a number"),
        ("augmentation: {time_masks: x}", "time_masks is 'x', expected a whole number"),
        ("augmentation: {time_masks: -1}", "time_masks is -1, expected 0 or more"),
        ("augmentation: {snr: 5}", "snr is 5, expected a list of 2, each a number"),
        ("augmentation: {snr: [.nan, 5]}", "expected lowest and highest dB"),
        ("augmentation: {speed: fast}", "speed is 'fast', expected a list, each a number"),
        ("augmentation: {noise: 5}", "noise is 5, expected a text or nothing"),
    ],
)
def test_settings_of_another_type(refused, tmp_path, yaml, words):
    (tmp_path / "settings.yaml").write_text(yaml)
    chosen = (
        *LABELS[:-2],
        "--adapter",
        "pfeiffer",
        "--out",
        tmp_path / "out",
    )  # --steps is of the file
    assert words in refused("train", *chosen, "--config", tmp_path / "settings.yaml")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", ["lora --alpha 0", "hydra --scale 0", "convpass --scale 0", "pfeiffer --scale -0.0"]
)
def test_what_would_learn_nothing(refused, tmp_path, options):
    said = refused("train", *LABELS, "--out", tmp_path / "out", "--adapter", *options.split())
    assert "with 0 nothing would be learnt" in said


def test_more_components_than_the_layer_has(refused, tmp_path):
    pissa = ("--adapter", "lora", "--start", "pissa", "--rank", 50, "--points", "attn.q")
    said = refused("train", *LABELS, "--out", tmp_path / "out", *pissa)
    assert "rank is 50, but with the start pissa at most" in said


@pytest.mark.parametrize("name", ["train", "finetune", "transcribe", "classify"])
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("foo", "device 'foo' is unknown; give cpu"),
        ("meta", "device 'meta' cannot be used ("),
        ("cuda:99", "device 'cuda:99' cannot be used ("),
    ],
)
def test_a_device_that_cannot_be_used(refused, tmp_path, name, device, words):
    options = ("--out", tmp_path / "out") if name in ("train", "finetune") else ()
    said = refused(name, *options, "--device", device)
    assert words in said and "give cpu" in said
    assert not (tmp_path / "out").exists()
