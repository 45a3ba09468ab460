"""Predicted against given opinions."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from speechadapt_eval import EvalError
from speechadapt_eval.labels.agreement import Predictions, agreement, measures, read_predictions

SCORES = arrays.arrays(float, 12, elements=st.sampled_from([1, 1.5, 2, 3, 3.3, 4.9]))


@given(SCORES, SCORES)
@settings(max_examples=100, deadline=None)
def test_measures_are_scipys(predicted, rating):
    lcc, srcc, ktau, mse = measures(predicted, rating)
    assert mse == pytest.approx(
        sum((p - r) ** 2 for p, r in zip(predicted, rating, strict=True)) / 12
    )
    if np.ptp(predicted) and np.ptp(rating):
        assert lcc == pytest.approx(stats.pearsonr(predicted, rating).statistic)
        assert srcc == pytest.approx(stats.spearmanr(predicted, rating).statistic)
        assert ktau == pytest.approx(stats.kendalltau(predicted, rating).statistic)
    else:
        assert all(map(math.isnan, (lcc, srcc, ktau)))


def test_kendall_by_its_definition():
    predicted, rating = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 3, 2, 5, 4])
    pairs = [(i, j) for i in range(5) for j in range(i)]
    agree = sum(np.sign((predicted[i] - predicted[j]) * (rating[i] - rating[j])) for i, j in pairs)
    assert measures(predicted, rating)[2] == pytest.approx(agree / len(pairs))


def test_too_few():
    assert all(map(math.isnan, measures(np.array([1.0, 2]), np.array([1.0, 2]))[:3]))


def rows(n=200, systems=25, seed=0):
    rng = np.random.default_rng(seed)
    system = rng.integers(0, systems, n)
    rating = 3 + 0.05 * system + rng.normal(size=n) * 0.3
    predicted = 1 + 0.6 * rating + rng.normal(size=n) * 0.2
    return [(f"u{i}", predicted[i], rating[i], f"s{system[i]:02}", f"v{i % 40}") for i in range(n)]


def write(path, table, header=("id", "predicted", "rating", "system", "speaker")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([header, *table])
    return path


def test_levels(tmp_path):
    table = rows()
    read = read_predictions(write(tmp_path / "p.csv", table))
    found = {(one.unit, one.measure): one for one in agreement(read, samples=200)}
    assert len(found) == 8
    expected = stats.pearsonr([row[1] for row in table], [row[2] for row in table]).statistic
    one = found["utterance", "lcc"]
    assert one.value == pytest.approx(expected) and one.n == 200
    assert one.interval.low < expected < one.interval.high
    assert one.interval.method == "bootstrap over 40 speakers"
    means = [
        [np.mean([row[side] for row in table if row[3] == name]) for side in (1, 2)]
        for name in sorted({row[3] for row in table})
    ]
    one = found["system", "srcc"]
    assert one.value == pytest.approx(stats.spearmanr(*zip(*means, strict=True)).statistic)
    assert one.n == 25 and one.interval.method == "bootstrap over 25 systems"


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        rating = rng.normal(size=60)
        predicted = 0.6 * rating + 0.8 * rng.normal(size=60)  # correlation 0.6
        read = Predictions(tuple(map(str, range(60))), predicted, rating, None, None)
        one = agreement(read, samples=60)[0]
        hits += one.interval.low <= 0.6 <= one.interval.high
    assert hits >= 86


def test_order_changes_no_value(tmp_path):
    table = rows(50)
    one, other = (
        agreement(read_predictions(write(tmp_path / "p.csv", given)), samples=10)
        for given in (table, table[::-1])
    )
    assert [a.value for a in one] == pytest.approx([a.value for a in other])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: no column 'id'"),
        ("id,predicted\n", "1: no column 'rating', only id, predicted"),
        ("id,predicted,rating\n", "has no utterances"),
        ("id,predicted,rating\nu,1,2\nu,1,2\n", "3: 'u' occurs twice"),
        ("id,predicted,rating\nu,1,\n", "2: rating '' of 'u' is no number"),
        ("id,predicted,rating\nu,nan,2\n", "2: predicted 'nan' of 'u' is no number"),
        ("id,predicted,rating\nu,1\n", "2: not as many cells"),
        ("id,predicted,rating\nu,1,2,3\n", "2: not as many cells"),
        ('id,predicted,rating\n"u,1,2\n', "unexpected end"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(EvalError) as error:
        read_predictions(tmp_path / "p.csv")
    assert message in str(error.value) and "p.csv" in str(error.value)


def test_not_there_and_not_utf8(tmp_path):
    with pytest.raises(EvalError, match="cannot read"):
        read_predictions(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_bytes(b"id,predicted,rating\n\xff,1,2\n")
    with pytest.raises(EvalError, match="not UTF-8"):
        read_predictions(tmp_path / "p.csv")


def test_command(tmp_path):
    write(tmp_path / "p.csv", [row[:3] for row in rows(40)], ("id", "predicted", "rating"))
    command = [sys.executable, "-m", "speechadapt_eval.cli.main", "agreement", "p.csv"]
    command += ["--samples", "50", "--out", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "out" / "mospred.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["measure"] for row in found] == ["lcc", "srcc", "ktau", "mse"]
    for row in found:
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    printed = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(printed.stdout)[0]["value"] == pytest.approx(float(found[0]["value"]))
