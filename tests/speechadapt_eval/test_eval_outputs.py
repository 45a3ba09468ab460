"""Files of results: whole or not at all, and readable by other programs."""

import csv
import json
import math

import pytest

from speechadapt_eval.errors import EvalError
from speechadapt_eval.outputs import as_json, write_csv, write_json, write_text


def test_json_of_numbers_that_json_has_not():
    found = json.loads(as_json({"a": math.nan, "b": [1.5, (math.inf, 2)], "c": "ў"}))
    assert found == {"a": None, "b": [1.5, [None, 2]], "c": "ў"}


def test_csv_reads_back(tmp_path):
    rows = [["a,b", 'say "x"', 1.5], ["ў\nz", math.nan, None]]
    write_csv(tmp_path / "deep" / "t.csv", ["x", "y", "z"], rows)
    with (tmp_path / "deep" / "t.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["x", "y", "z"], ["a,b", 'say "x"', "1.5"], ["ў\nz", "", ""]
        ]  # fmt: skip


def test_nothing_half_written(tmp_path):
    write_json(tmp_path / "a.json", 1)

    def rows():
        yield [1]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_csv(tmp_path / "a.csv", ["x"], rows())
    with pytest.raises(EvalError, match=r"cannot write .*a\.json/b"):
        write_text(tmp_path / "a.json" / "b", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
