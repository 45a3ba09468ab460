"""Tables of the small bases: words by voice, labels by kind and condition."""

import json

from speechadapt.data import Utterance, write_data_dir
from speechadapt_recipes.bases.categories import write_categories
from speechadapt_recipes.cli import main


def test_words_by_voice(tmp_path, capsys):
    utterances = [
        Utterance(f"v_{language}-{n}", "x.flac", text="one two", language=language,
                  speaker=f"v_{language}", duration=1.0)
        for language in ("be", "ro") for n in range(2)
    ]  # fmt: skip
    write_data_dir(tmp_path / "data", utterances)
    text = tmp_path / "text"
    text.write_text("v_be-0 one two\nv_be-1 one\nv_ro-0 one two\nv_ro-1 one two\n")
    assert main(["words", str(tmp_path / "data"), str(text)]) == 0
    rows = table_rows(capsys.readouterr().out)
    assert rows[1][:5] == ["be", "v_be", "2", "4", "25.00"]
    assert rows[2][:5] == ["ro", "v_ro", "2", "4", "0.00"]
    assert rows[3][:5] == ["all", "", "4", "8", "12.50"]


def table_rows(text):
    rows = [[c.strip() for c in line.strip("| \n").split("|")] for line in text.splitlines()]
    return [row for row in rows if len(row) > 1 and not set("".join(row)) <= set("-:")]


def test_labels_by_kind_and_condition(tmp_path, capsys):
    truth = {
        "a": ("lang:be",), "b": ("lang:ro",), "c": ("lang:be", "scene:hum"),
        "d": ("scene:hum",), "e": ("sound:bird",), "f": ("sound:tool", "scene:hum"),
    }  # fmt: skip
    utterances = [Utterance(name, "x.flac", duration=1.0) for name in truth]
    write_categories(tmp_path / "data", utterances, truth, "free\n")
    labels = sorted({label for mine in truth.values() for label in mine})
    answers = tmp_path / "answers.jsonl"
    wrong = {"b": {"lang:be": 0.9}, "f": {"sound:bird": 0.8}}
    rows = []
    for name, mine in truth.items():
        row = {label: 0.7 if label in mine else 0.1 for label in labels} | wrong.get(name, {})
        rows.append(json.dumps({"id": name, "seconds": 1.0, "labels": row}))
    answers.write_text("\n".join(rows) + "\n")
    assert main(["labels", str(tmp_path / "data"), str(answers)]) == 0
    found = table_rows(capsys.readouterr().out)
    errors = {(row[0], row[1]): row[2:4] for row in found if len(row) == 5}
    assert errors["lang", "all"] == ["3", "33.33"]
    assert errors["lang", "alone"] == ["2", "50.00"]
    assert errors["lang", "hum"] == ["1", "0.00"]
    assert errors["sound", "all"] == ["2", "50.00"]
    assert errors["scene", "alone"] == ["1", "0.00"]
    precision = {row[0]: row[1:] for row in found if len(row) == 3}
    assert precision["scene:hum"] == ["3", "100.00"]
    assert precision["lang:be"] == ["2", "66.67"]  # after b, tied: 2 of the first 3
    answers.write_text(rows[0] + "\n")
    assert main(["labels", str(tmp_path / "data"), str(answers)]) == 2
    assert "b has no probability of lang:be" in capsys.readouterr().err
