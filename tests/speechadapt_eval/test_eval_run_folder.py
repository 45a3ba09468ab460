"""The folder of a run: what is written is read back, and damage is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import Row
from speechadapt_eval.runs.folder import TABLES, Decoding, Run, RunSet, RunSystem, safe_name


def a_run(path):
    return Run(
        path,
        (RunSystem("base", "cmd:true", parameters=7), RunSystem("b.2", "cmd:false")),
        (RunSet("ro", "data/ro", "ro", 2, 3.5),),
        {"command": "run", "seeds": [1]},
    )


def test_reads_what_was_written(tmp_path):
    run = a_run(tmp_path)
    run.write()
    rows = [
        Row("u2", "a\u2028b\nc", "", "ro", {"snr": 5, "task": "asr", "seconds": float("nan")}),
        Row("u1", None, "ў", None, {}),
    ]
    took = Decoding(1.5, 3.5, 1, True, 0.5, 100, 7.5, None, "ab")
    run.write_rows("base", "ro", rows, took)
    run.write_table("wer", [{"system": "base", "rate": 0.1, "note": 'a "b",\nc'}])
    read = Run.read(tmp_path)
    assert read == run
    assert [(s.name, t.name) for s, t in read.decoded()] == [("base", "ro")]
    assert list(read.rows("base", "ro").values()) == [
        Row("u2", "a\u2028b\nc", "", "ro", {"snr": 5, "task": "asr", "seconds": None}),
        rows[1],
    ]
    assert read.decoding("base", "ro") == took
    assert read.decoding("b.2", "ro") == Decoding()
    (cells,) = read.table("wer")
    assert list(cells) == list(TABLES["wer"])
    assert (cells["rate"], cells["note"], cells["low"]) == ("0.1", 'a "b",\nc', "")
    assert read.table("pairs") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ({"systems": []}, "'systems' is not a list of objects, or it is empty"),
        ({"systems": [{"name": "a"}]}, r"systems\[0\]: spec missing"),
        ({"systems": [{"name": "a", "spec": 3}]}, "'spec' is 3, expected str"),
        ({"systems": [{"name": "../a", "spec": ""}]}, "'../a' in 'systems' is no file name"),
        ({"systems": [{"name": n, "spec": ""} for n in "aA"]}, "two of 'systems'"),
        ({"systems": [{"name": "a", "spec": "", "threads": True}]}, "expected int or null"),
        ({"sets": [5]}, "5 is no object"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    a_run(tmp_path).write()
    path = tmp_path / "run.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EvalError, match=message) as error:
        Run.read(tmp_path)
    assert "run.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(EvalError, match="is no folder"):
        Run.read(tmp_path / "none")
    with pytest.raises(EvalError, match=r"run\.json"):
        Run.read(tmp_path)
    with pytest.raises(EvalError, match=r"ro\.jsonl"):
        a_run(tmp_path).rows("base", "ro")
    with pytest.raises(EvalError, match=r"choose one of base, b\.2"):
        a_run(tmp_path).system("c")


@given(st.text())
def test_safe_names_are_file_names(text):
    name = safe_name(text)
    assert name and len(name.encode()) <= 100 and not set(name) & set('/\\:*?"<>|\0\n ')
    assert name not in (".", "..") and safe_name(name) == name
