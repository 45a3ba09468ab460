"""The tables of egs/tuxpaint/asr1, from hypotheses whose errors are known."""

import json

import pytest

from speechadapt.data import Utterance, write_data_dir
from speechadapt_recipes.cli import main

REFERENCES = {"bird": "one two three four", "tree": "five six seven eight"}
WRONG = {  # words wrong in each of the two texts
    "decode_frozen_full": (2, 2),
    "decode_frozen_2.56": (4, 4),
    "decode_adapter_full": (2, 1),
    "decode_adapter_0.5": (1, 1),
}


@pytest.fixture
def recipe(tmp_path):
    """Two languages, decoded."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    for language in ("be", "ro"):
        ids = {name: f"tuxpaint_{language}-{name}" for name in REFERENCES}
        write_data_dir(
            data / language / "test",
            [Utterance(ids[n], f"{n}.flac", text=t, speaker="x") for n, t in REFERENCES.items()],
        )
        split = {"clips": 2, "texts": 2, "minutes": 0.1}
        _write(data / language / "splits.json", json.dumps(dict.fromkeys(PARTS, split)))
        _write(data / language / "unusable.tsv", "id\treason\nx\tsilent\n")
        run = {"best_step": 120, "steps": 240, "seconds": 61.7, "peak_memory": 3 * 2**29}
        for name in ("train_plain", "train_speed_150", "train_speed_240", "finetune"):
            _write(exp / language / name / "result.json", json.dumps(run))
        for system, wrong in WRONG.items():
            decoded(exp / language / system, ids, wrong)
    return tmp_path


PARTS = ("train", "dev", "test")


def decoded(folder, ids, wrong):
    """A hypothesis with so many wrong words in each text."""
    lines = []
    for (name, text), errors in zip(REFERENCES.items(), wrong, strict=True):
        words = text.split()
        lines.append(" ".join([ids[name], *["oh"] * errors, *words[errors:]]) + "\n")
    _write(folder / "text", "".join(lines))


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def report(recipe, capsys):
    """Rows of every table, by their first cell."""
    arguments = ["--data", recipe / "data", "--exp", recipe / "exp", "--languages", "be", "ro"]
    assert main(["results", *map(str, arguments)]) == 0
    out = capsys.readouterr().out
    rows = [[c.strip() for c in line.strip("| \n").split("|")] for line in out.splitlines()]
    return out, [row for row in rows if len(row) > 1]


def test_error_rates_and_costs(recipe, capsys):
    out, rows = report(recipe, capsys)
    (be, cost) = [row for row in rows if row[0] == "be"]
    assert be[1:6] == ["2", "8", "50.00", "100.00", "37.50"]
    assert be[6].startswith("25.00 [")
    assert be[-1] == "50%"
    assert "better context: 50.0%; smallest 50.0%" in out
    assert cost[1:] == ["2 / 2 / 0.1"] * 3 + ["1", "120, 120, 120", "185", "1.5"]
    pooled = {row[0]: row[1:3] for row in rows if row[0].startswith(("frozen", "adapter"))}
    assert pooled["adapter, 0.5 s of silence"] == ["4", "25.00"]
    assert "minus 30 s: -12.50 points" in out and "over 2 pictures" in out
    assert "Full fine-tuning" not in out and "Trailing silence" not in out


def test_later_stages_are_added_where_they_have_been_run(recipe, capsys):
    exp = recipe / "exp"
    ids = {name: f"tuxpaint_ro-{name}" for name in REFERENCES}
    decoded(exp / "ro" / "decode_full_finetune", ids, (1, 0))
    for system in ("frozen", "adapter"):
        for errors, silence in enumerate(("2.56", "1.0", "0.5", "0.25", "0")):
            decoded(exp / "ro" / f"silence_{system}_{silence}", ids, (errors, errors))
        decoded(exp / "ro" / f"silence_{system}_full", ids, (0, 0))
    out, rows = report(recipe, capsys)
    assert "Full fine-tuning" in out and "Trailing silence" in out
    (row,) = [row for row in rows if row[0] == "ro, frozen"]
    assert row[1:] == ["100.00", "75.00", "50.00", "25.00", "0.00", "0.00"]
    yardstick = next(row for row in rows if row[0] == "ro" and len(row) == 7)
    assert yardstick[1] == "25.00" and yardstick[2].startswith("12.50 [")
    assert not [row for row in rows if row[0] == "be" and len(row) == 7]


def test_a_missing_run_is_named(recipe, capsys):
    (recipe / "exp" / "ro" / "train_speed_150" / "result.json").unlink()
    arguments = ["--data", recipe / "data", "--exp", recipe / "exp", "--languages", "ro"]
    assert main(["results", *map(str, arguments)]) == 2
    assert "ro/train_speed_150/result.json: missing" in capsys.readouterr().err
