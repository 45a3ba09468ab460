"""The table of egs/tuxpaint/families1, from runs whose errors are known, and its channel task."""

import json

import numpy as np
import pytest
import soundfile
from kaldi_rules import problems

from speechadapt.adapters.registry import PRESETS
from speechadapt.audio import load_audio
from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt_recipes.bases.categories import read_categories, write_categories
from speechadapt_recipes.channel_task import channel_of
from speechadapt_recipes.cli import main
from speechadapt_recipes.corpora.channels import CHANNELS
from speechadapt_recipes.runs import parameters_of

WORDS = "one two three four"


@pytest.fixture
def recipe(tmp_path):
    """Three families on Whisper, two of them in be too; AST with one; one that was refused."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    for language in ("ro", "be"):
        utterances = [Utterance(f"s-{n}", f"{n}.flac", text=WORDS, speaker="s") for n in range(2)]
        write_data_dir(data / language / "test", utterances)
    for preset, wrong in (("frozen", 4), ("lora", 1), ("pfeiffer", 2), ("houlsby", 3)):
        run(exp / "whisper/ro" / preset, preset)
        decoded(exp / "whisper/ro" / preset, wrong)
    decoded(exp / "whisper/be/lora", 0)
    run(exp / "whisper/be/lora", "lora")
    (exp / "whisper/ro/convpass").mkdir()
    (exp / "whisper/ro/convpass/refused").write_text("speechadapt: convpass cannot be there\n")
    utterances = [Utterance(name, "x.flac") for name in ("a", "b")]
    labels = {"a": ("channel:clean",), "b": ("channel:lossy",)}
    write_categories(data / "channels/ro/test", utterances, labels, "free\n")
    run(exp / "ast/ro/bitfit", "bitfit")
    answers = [{"id": n, "labels": {"channel:clean": 0.9, "channel:lossy": 0.1}} for n in "ab"]
    lines = "\n".join(map(json.dumps, answers))
    (exp / "ast/ro/bitfit/answers.jsonl").write_text(lines + "\n")
    return tmp_path


def run(folder, preset):
    (folder / "adapter").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"seconds": 61.7}))
    if preset == "frozen":
        return
    shapes = {"encoder.0.out/x": [3, 4], "encoder.0.out/y": [5], "head/proj.weight": [99, 99]}
    description = {"config": PRESETS[preset].to_dict(), "shapes": shapes}
    (folder / "adapter/speechadapt.json").write_text(json.dumps(description))


def decoded(folder, wrong):
    (folder / "decode").mkdir(parents=True)
    words = WORDS.split()
    said = " ".join(["oh"] * wrong + words[wrong:])
    (folder / "decode/text").write_text(f"s-0 {said}\ns-1 {said}\n")


def families(recipe, *arguments):
    places = ["--data", recipe / "data", "--exp", recipe / "exp"]
    return main(["families", *map(str, [*places, *arguments])])


def test_families_are_ranked_and_what_is_missing_is_left_out(recipe, capsys):
    assert families(recipe, "--others", "be", "es") == 0
    out = capsys.readouterr().out
    rows = [[c.strip() for c in line[1:-1].split("|")] for line in out.splitlines()]
    rows = [row for row in rows if len(row) > 1 and "---" not in row[0]]
    assert rows[0] == ["whisper", "parameters", "WER % ro", "95 % CI", "seconds", "WER % be"]
    assert [row[0] for row in rows[1:5]] == ["lora", "pfeiffer", "houlsby", "frozen"]
    assert rows[1][1:3] == ["17", "25.00"] and rows[1][4:] == ["62", "0.00"]
    assert rows[4][1:3] == ["0", "100.00"] and rows[4][4:] == ["0", ""]
    assert "convpass: refused, convpass cannot be there" in out
    assert rows[5][0] == "ast" and rows[5][2] == "error % ro"
    assert rows[6][:3] == ["bitfit", "17", "50.00"]


def test_the_best_are_named(recipe, capsys):
    assert families(recipe, "--best", 2, "--backbone", "whisper") == 0
    assert capsys.readouterr().out == "lora pfeiffer\n"
    assert families(recipe, "--list") == 0
    assert capsys.readouterr().out.split() == list(PRESETS)
    assert families(recipe, "--best", 4, "--backbone", "whisper") == 2
    assert "3 families, 4 are wanted" in capsys.readouterr().err
    assert families(recipe, "--best", 4) == 2
    assert "--best needs --backbone" in capsys.readouterr().err
    assert families(recipe, "--language", "xx") == 2
    assert "no run is finished" in capsys.readouterr().err


def test_running_statistics_are_no_parameters(tmp_path):
    (tmp_path / "adapter").mkdir()
    shapes = {"encoder.0.out/inner_norm.mean": [7], "encoder.0.out/down.weight": [2, 3]}
    description = {"config": PRESETS["conformer"].to_dict(), "shapes": shapes}
    (tmp_path / "adapter/speechadapt.json").write_text(json.dumps(description))
    assert parameters_of(tmp_path / "adapter") == 6


def test_every_utterance_comes_through_one_channel(tmp_path, capsys):
    for split in ("train", "dev", "test"):
        utterances = []
        for number in range(12):
            path = tmp_path / f"{split}{number}.wav"
            rng = np.random.default_rng(number)
            soundfile.write(path, 0.1 * rng.standard_normal(8_000), 16_000)
            utterances.append(Utterance(f"s-{split}{number}", str(path), text="x", speaker="s"))
        write_data_dir(tmp_path / "ro" / split, utterances, {"LICENCE": "free\n"})
    arguments = ["--data", tmp_path / "ro", "--out", tmp_path / "channels", "--nj", 1]
    assert main(["channels", *map(str, arguments)]) == 0
    assert "train: channel:" in capsys.readouterr().out
    found = set()
    for split in ("train", "dev", "test"):
        place = tmp_path / "channels" / split
        assert problems(place) == []
        assert (place / "LICENCE").read_text() == "free\n"
        labels = read_categories(place)
        for utterance in read_data_dir(place):
            assert utterance.speaker == "s" and len(load_audio(utterance.audio)) == 8_000
            assert labels[utterance.id] == (f"channel:{channel_of(utterance.id)}",)
            found |= set(labels[utterance.id])
    assert found == {f"channel:{name}" for name in CHANNELS}
