"""The commands a user runs, on a tiny random Whisper saved to disk."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from whisper_files import tiny_whisper, write_transformers

from speechadapt.audio import write_flac
from speechadapt.cli.main import COMMANDS, main
from speechadapt.data import Utterance, write_data_dir

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def in_a_process(*arguments, **options):
    """The command in a process of its own, as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "speechadapt.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
        check=False,
        **options,
    )


def speechadapt(*arguments):
    """The same command in this process: importing torch anew takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def refused(done, *words):
    """A user's mistake: exit code 2, one sentence that names the item, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("speechadapt: ")
    for word in words:
        assert str(word) in said, said


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base, recordings and data directories."""
    folder = tmp_path_factory.mktemp("home")
    write_transformers(
        folder / "base",
        tiny_whisper(vocab_size=51865, max_source_positions=1500, max_target_positions=64),
    )
    rng = np.random.default_rng(0)
    utterances = []
    for index, text in enumerate(["a cat", "dog", "the red house", "sun", "two", "six"]):
        path = folder / "audio" / f"{index}.flac"
        write_flac(path, 0.1 * rng.standard_normal(8_000 + 1_000 * index).astype(np.float32))
        utterances.append(
            Utterance(
                f"be-{index}",
                str(path),
                text=text,
                language="be",
                speaker="be",
                duration=(8_000 + 1_000 * index) / 16_000,
            )
        )
    write_data_dir(folder / "train", utterances[:4], {"LICENCE": "CC0\n"})
    write_data_dir(folder / "dev", utterances[4:])
    return folder


def train(home, out, *extra):
    return [
        *("train", "--base", home / "base", "--data", home / "train", "--dev", home / "dev"),
        *("--bottleneck", 4, "--steps", 12, "--eval-every", 6, "--checkpoint-every", 2),
        *("--batch-seconds", 3, "--trailing-silence", 0.2, "--out", out, *extra),
    ]


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_train_killed_at_random_moments_ends_with_the_same_bytes(home, tmp_path):
    whole = tmp_path / "whole" / "be"
    assert in_a_process(*train(home, "be"), cwd=_made(tmp_path / "whole")).returncode == 0
    rng = random.Random(0)
    cut = _made(tmp_path / "cut")
    kills = 0
    while kills < 3:
        process = subprocess.Popen(
            [sys.executable, "-m", "speechadapt.cli.main", *map(str, train(home, "be"))],
            cwd=cut,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        # Kill once a random number of further steps is on disk, so that every kill costs some.
        log, target = cut / "be" / "log.jsonl", kills * 2 + rng.randint(1, 2)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count('"loss"') >= target:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    done = in_a_process(*train(home, "be"), cwd=cut)
    assert done.returncode == 0, done.stderr
    assert folder_bytes(cut / "be" / "adapter") == folder_bytes(whole / "adapter")


def _made(folder):
    folder.mkdir()
    return folder


def test_train_then_transcribe(home, tmp_path):
    done = speechadapt(*train(home, tmp_path / "be"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 12
    description = json.loads((tmp_path / "be" / "adapter" / "speechadapt.json").read_text())
    assert description["name"] == "be"
    assert description["info"]["language"] == "be"
    assert description["info"]["licence"] == "CC0"
    out = tmp_path / "text"
    done = speechadapt(
        *("transcribe", home / "dev", "--base", home / "base"),
        *("--adapter", tmp_path / "be" / "adapter", "--format", "kaldi", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in out.read_text().splitlines()] == ["be-4", "be-5"]


def test_train_starts_from_another_adapter(home, tmp_path):
    assert speechadapt(*train(home, tmp_path / "shared")).returncode == 0
    start = tmp_path / "shared" / "adapter"
    still = ("--init", start, "--learning-rate", 0, "--steps", 1)
    done = speechadapt(*train(home, tmp_path / "be", *still))
    assert done.returncode == 0, done.stderr
    stored = (tmp_path / "be" / "adapter" / "adapter.safetensors").read_bytes()
    assert stored == (start / "adapter.safetensors").read_bytes()
    refused(speechadapt(*train(home, tmp_path / "be", *still[2:])), "init")
    wider = (*still, "--bottleneck", 8)
    refused(speechadapt(*train(home, tmp_path / "wide", *wider)), "shared", "bottleneck", "8")


def test_adapters_are_averaged(home, tmp_path):
    runs = [tmp_path / name / "adapter" for name in ("plain", "again", "other")]
    for run, extra in zip(runs, ((), ("--speed", 0.9, 1.1), ("--seed", 1)), strict=True):
        extra = ("--name", "be", *extra)
        assert speechadapt(*train(home, run.parent, *extra)).returncode == 0
    out, base = tmp_path / "be", ("--base", home / "base")
    done = speechadapt("adapters", "average", *runs[:2], *base, "--out", out)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    plain, again, mean = (load_file(folder / "adapter.safetensors") for folder in (*runs[:2], out))
    for key, tensor in mean.items():
        torch.testing.assert_close(tensor, (plain[key] + again[key]) / 2)
    description = json.loads((out / "speechadapt.json").read_text())
    assert description["name"] == "be" and description["info"]["language"] == "be"
    sources = description["info"]["training"]
    assert [run["seed"] for run in sources.values()] == [0, 0]
    assert "- averaged run 2:\n  - accumulate: 1\n" in (out / "README.md").read_text()
    done = speechadapt("transcribe", home / "dev", "--adapter", out, *base)
    assert done.returncode == 0, done.stderr

    done = speechadapt("adapters", "average", runs[0], runs[2], *base, "--out", out)
    assert done.returncode == 0 and "did not start alike" in done.stderr
    missing = tmp_path / "nowhere"
    refused(speechadapt("adapters", "average", runs[0], missing, *base, "--out", out), missing)


def test_train_on_several_sets(home, tmp_path):
    several = ("--data", home / "train", home / "dev", "--steps", 1)
    done = speechadapt(*train(home, tmp_path / "both", *several))
    assert done.returncode == 0, done.stderr
    description = json.loads((tmp_path / "both" / "adapter" / "speechadapt.json").read_text())
    assert "6 utterances" in description["info"]["training"]["data"]
    twice = ("--data", home / "train", home / "train")
    refused(speechadapt(*train(home, tmp_path / "twice", *twice)), home / "train", "be-0")


def test_finetune_writes_a_base_that_transcribes(home, tmp_path):
    done = speechadapt(
        *("finetune", "--base", home / "base", "--data", home / "train", "--steps", 3),
        *("--trailing-silence", 0.2, "--out", tmp_path / "full"),
    )
    assert done.returncode == 0, done.stderr
    done = speechadapt(
        *("transcribe", home / "dev", "--base", tmp_path / "full" / "model"),
        *("--language", "be", "--context", "0.2"),
    )
    assert done.returncode == 0, done.stderr


def test_augmentation_and_yaml(home, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("training: {steps: 2}\naugmentation: {time_masks: 1}\n")
    done = speechadapt(*train(home, tmp_path / "be", "--config", config, "--speed", 0.9, 1.1))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--data", "nowhere"], ["nowhere"]),
        (["--bottleneck", "0"], ["bottleneck", "0"]),
        (["--adapter", "compacter"], ["compacter", "houlsby"]),
        (["--learning-rate", "-1"], ["learning_rate", "-1"]),
        (["--name", "a+b"], ["a+b"]),
        (["--base", "nobody/nothing"], ["nobody/nothing"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_train_refuses(home, tmp_path, extra, words):
    refused(speechadapt(*train(home, tmp_path / "be", *extra)), *words)
    assert not (tmp_path / "be" / "adapter").exists()


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("training: {stepz: 2}", ["stepz"]),
        ("trainin: {steps: 2}", ["trainin"]),
        ("training: [1", ["no YAML"]),
        ("training: {learning_rate: fast}", ["'fast', expected a number"]),
    ],
)
def test_yaml_is_checked(home, tmp_path, yaml, words):
    config = tmp_path / "c.yaml"
    config.write_text(yaml)
    refused(speechadapt(*train(home, tmp_path / "be", "--config", config)), *words)


def test_bad_recordings_are_named_or_skipped(home, tmp_path):
    audio = _made(tmp_path / "audio")
    tone = 0.1 * np.sin(np.arange(16_000) / 20)
    soundfile.write(audio / "a.wav", np.stack([tone, tone], 1), 96_000)
    soundfile.write(audio / "b.wav", tone, 8_000, subtype="PCM_U8")
    (audio / "c.wav").write_bytes((audio / "a.wav").read_bytes()[:5_000])
    soundfile.write(audio / "d.wav", np.full(1_000, np.nan), 16_000, subtype="FLOAT")
    (audio / "e.wav").write_bytes(b"")
    soundfile.write(audio / "f.wav", tone[:0], 16_000)
    (audio / "g.wav").write_text("not sound")
    soundfile.write(audio / "h.wav", tone, 16_000)
    command = ["transcribe", audio, "--base", home / "base", "--language", "be", "--context", "0.2"]
    done = speechadapt(*command, "--format", "kaldi", "--out", tmp_path / "one")
    refused(done, "c.wav")
    assert len((tmp_path / "one").read_text().splitlines()) == 2  # what came before is not lost
    done = speechadapt(*command, "--format", "kaldi", "--out", tmp_path / "all", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "5 of 8" in done.stderr
    ids = [line.split()[0] for line in (tmp_path / "all").read_text().splitlines()]
    assert ids == ["a", "b", "h"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "example" in capsys.readouterr().out
