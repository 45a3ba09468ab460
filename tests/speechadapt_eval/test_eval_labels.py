"""Labels against scikit-learn and against the definitions."""

import csv
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

from speechadapt_eval import EvalError
from speechadapt_eval.labels import metrics
from speechadapt_eval.labels.calibration import calibration
from speechadapt_eval.labels.read import Labelled, Table, join, read_answers, read_labels
from speechadapt_eval.labels.report import evaluate


def table(values, *, scored, ids=None, classes=None):
    values = np.asarray(values, dtype=float)
    n, width = values.shape
    ids = ids or tuple(f"u{i}" for i in range(n))
    return Table(Path("x"), ids, classes or tuple(f"c{i}" for i in range(width)), values, scored)


def labelled(truth, values, *, scored=True, threshold=0.5):
    return join(table(truth, scored=False), table(values, scored=scored), threshold)


def once(given):
    return np.ones((1, len(given.ids)))


def one_each(n=120, classes=5, seed=0):
    """Labels, and probabilities that lean to them; the last class is never the label."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, classes - 1, n)
    raw = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[right]
    probabilities = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    return right, probabilities, labelled(np.eye(classes)[right], probabilities)


@given(
    arrays.arrays(bool, 30), arrays.arrays(np.int8, 30, elements=st.integers(0, 5)),
    arrays.arrays(np.int8, 30, elements=st.integers(0, 3)),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_average_precision_is_sklearns(truth, scores, weights):
    found = metrics.average_precision(truth, scores / 5, weights[None].astype(float))[0]
    if not (truth & (weights > 0)).any():
        assert math.isnan(found)
    else:
        expected = sklearn_metrics.average_precision_score(truth, scores, sample_weight=weights)
        assert found == pytest.approx(expected, abs=1e-12)


def test_f1_and_accuracy_are_sklearns():
    right, probabilities, given = one_each()
    best = probabilities.argmax(axis=1)
    assert 4 in best  # a class that no item has is answered
    found = dict(zip(metrics.METRICS, metrics.values(given, once(given))[0], strict=True))
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(right, best))
    assert found["micro_f1"] == pytest.approx(found["accuracy"])
    there = np.unique(right)
    expected = sklearn_metrics.f1_score(right, best, average="macro", labels=there)
    assert found["macro_f1"] == pytest.approx(expected)
    assert expected > sklearn_metrics.f1_score(right, best, average="macro")


def test_any_number_of_labels_is_sklearns():
    rng = np.random.default_rng(1)
    truth, scores = rng.random((80, 6)) < 0.3, rng.random((80, 6))
    given = labelled(truth, scores, threshold=0.4)
    assert not given.one_each
    found = dict(zip(metrics.METRICS, metrics.values(given, once(given))[0], strict=True))
    answers = scores >= 0.4
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, answers))
    for kind in ("macro", "micro"):
        expected = sklearn_metrics.f1_score(truth, answers, average=kind)
        assert found[f"{kind}_f1"] == pytest.approx(expected)
    expected = sklearn_metrics.average_precision_score(truth, scores, average="macro")
    assert found["map"] == pytest.approx(expected)
    rows = metrics.by_class(given)
    columns = sklearn_metrics.precision_recall_fscore_support(truth, answers)
    for row, *expected in zip(rows, *columns, strict=True):
        assert [row.precision, row.recall, row.f1, row.positives] == pytest.approx(expected)


def test_class_without_positives_is_not_in_the_mean():
    truth, scores = np.array([[1, 0, 0], [0, 1, 0]]), np.array([[0.9, 0.1, 0.2], [0.2, 0.8, 0.3]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sklearn_metrics.average_precision_score(truth, scores) == pytest.approx(2 / 3)
    given = labelled(truth, scores)
    assert metrics.mean_average_precision(given, once(given))[0] == 1
    assert evaluate(given, samples=10).without_positives == ("c2",)


def test_weights_are_repetitions():
    _, _, given = one_each(40)
    weights = np.random.default_rng(2).multinomial(40, np.full(40, 1 / 40), size=6)
    found = metrics.values(given, weights.astype(float))
    for row, expected in zip(weights, found, strict=True):
        repeated = metrics.select(given, np.repeat(np.arange(40), row))
        np.testing.assert_allclose(metrics.values(repeated, once(repeated))[0], expected)


def test_order_of_items_changes_nothing():
    _, _, given = one_each(60)
    shuffled = metrics.select(given, np.random.default_rng(0).permutation(60))
    np.testing.assert_allclose(
        metrics.values(given, once(given)), metrics.values(shuffled, once(shuffled))
    )
    assert calibration(given).ece == pytest.approx(calibration(shuffled).ece)


def test_confusion_is_sklearns():
    right, probabilities, given = one_each()
    columns, counts = metrics.confusion(given)
    expected = sklearn_metrics.confusion_matrix(right, probabilities.argmax(axis=1))
    assert columns[-1] == "(none)" and not counts[:, -1].any()
    np.testing.assert_array_equal(counts[:, :-1], expected)


def test_item_without_answer_is_wrong():
    given = labelled(np.eye(2), [[1, 0], [0, 0]], scored=False)
    assert metrics.accuracy(given, once(given))[0] == 0.5
    _, counts = metrics.confusion(given)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 1]])


def test_calibration_by_its_definition():
    right, probabilities, given = one_each(200)
    found = calibration(given, bins=10)
    confidence, good = probabilities.max(axis=1), probabilities.argmax(axis=1) == right
    expected = 0.0
    for i, one in enumerate(found.bins):
        inside = [j for j, c in enumerate(confidence) if i / 10 < c <= (i + 1) / 10]
        assert one.n == len(inside)
        if inside:
            expected += abs(good[inside].sum() - confidence[inside].sum()) / 200
    assert found.ece == pytest.approx(expected) and sum(one.n for one in found.bins) == 200


def test_calibration_where_the_truth_is_known():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    truth = np.where(rng.random(20_000) < p, 0, 1)
    scores = np.stack([p, 1 - p], axis=1)
    assert calibration(labelled(np.eye(2)[truth], scores)).ece < 0.012
    sure = np.where(scores > 0.5, 1.0, 0.0)
    assert calibration(labelled(np.eye(2)[truth], sure)).ece == pytest.approx(0.25, abs=0.02)


def test_calibration_that_is_none():
    assert "no scores" in calibration(labelled(np.eye(2), np.eye(2), scored=False)).reason
    found = calibration(labelled(np.eye(2), 3 * np.eye(2)))
    assert math.isnan(found.ece) and "no probabilities" in found.reason
    several = calibration(labelled([[1, 1], [0, 0]], [[1.0, 0.0], [0.0, 0.0]]))
    assert several.of == "item and class" and several.ece == 0.25


def test_evaluate():
    _, _, given = one_each(90)
    folds = {name: str(i % 3) for i, name in enumerate(given.ids)}
    report = evaluate(given, folds=folds, samples=200)
    for figure in report.figures:
        assert figure.interval.low < figure.value < figure.interval.high
    assert [fold.items for fold in report.folds] == [30, 30, 30]
    values = [fold.values["accuracy"] for fold in report.folds]
    assert report.over_folds("accuracy") == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert evaluate(given, folds=folds, samples=200).figures == report.figures
    speakers = {name: str(i % 30) for i, name in enumerate(given.ids)}
    report = evaluate(given, speakers=speakers, samples=200)
    assert {f.interval.method for f in report.figures} == {"bootstrap over 30 speakers"}
    del folds["u7"]
    with pytest.raises(EvalError, match=r"1 items have no fold \('u7'\)"):
        evaluate(given, folds=folds)


def test_all_right():
    report = evaluate(labelled(np.eye(3), np.eye(3)), samples=50)
    accuracy, macro, *_ = report.figures
    assert accuracy.value == 1 and accuracy.interval.method == "Wilson over 3 items"
    assert accuracy.interval.high == 1 and 0.4 < accuracy.interval.low < 0.5
    assert macro.value == 1 and "every resample" in macro.interval.note


# Files

JSONL = '{"id": "u1", "labels": {"dog": 0.9, "cat": 0.1}}\n{"id": "u2", "labels": {"cat": 0.6}}\n'


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def same(one, other):
    assert (one.ids, one.classes) == (other.ids, other.classes)
    for name in ("truth", "answers", "scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_formats_say_the_same(tmp_path):
    ref = write(tmp_path, "ref", "u1 dog\nu2 cat\n")
    lists = write(tmp_path, "ref.jsonl", '{"id":"u1","labels":["dog"]}\n{"id":"u2","labels":"cat"}')
    hyp = write(tmp_path, "hyp.jsonl", JSONL)
    npz = tmp_path / "both.npz"
    for labels in (np.eye(2)[[1, 0]], np.array([1, 0])):
        probs = np.array([[0.1, 0.9], [0.6, 0]])
        np.savez(npz, ids=["u1", "u2"], classes=["cat", "dog"], probs=probs, labels=labels)
        expected = join(read_labels(ref), read_answers(hyp))
        same(join(read_labels(lists), read_answers(hyp)), expected)
        same(join(read_labels(npz), read_answers(npz)), expected)
        same(join(read_labels(ref), read_answers(npz)), expected)
    assert expected.classes == ("cat", "dog") and expected.one_each


def test_matched_by_id_not_by_order(tmp_path):
    ref = read_labels(write(tmp_path, "ref", "u1 a\nu2 b\nu3 b\n"))
    hyp = read_answers(write(tmp_path, "hyp", "u9 b\nu3 b\nu2 b\nu1 a\n"))
    given = join(ref, hyp)
    assert metrics.accuracy(given, once(given))[0] == 1 and given.extra == 1
    assert isinstance(given, Labelled) and given.scores is None
    assert math.isnan(evaluate(given, samples=5).figures[3].value)


@pytest.mark.parametrize(
    ("ref", "hyp", "message"),
    [
        ("u1 a\nu2 b\n", "u1 a\n", "1 of 2 references have no answer ('u2')"),
        ("u1 a\nu2 b\n", "u1 a\nu2 a b\n", "'u2' is given several labels"),
        ("u1 a\nu1 b\n", "u1 a\n", "ref:2: utterance 'u1' occurs a second time"),
    ],
)
def test_bad_pairs(tmp_path, ref, hyp, message):
    with pytest.raises(EvalError) as error:
        join(read_labels(write(tmp_path, "ref", ref)), read_answers(write(tmp_path, "hyp", hyp)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        '{"id": "u"}',
        '{"id": "u", "labels": 3}',
        '{"id": "u", "labels": ["a", 1]}',
        '{"id": "u", "labels": {"a": "b"}}',
        '{"id": "u", "labels": {"a": NaN}}',
        '{"id": "u", "labels": {"a": true}}',
        '{"id": "u", "labels": "a"}\n{"id": "v", "labels": {"a": 1}}',
    ],
)
def test_bad_jsonl(tmp_path, row):
    with pytest.raises(EvalError, match=r"hyp\.jsonl.*(labels|NaN)"):
        read_answers(write(tmp_path, "hyp.jsonl", row + "\n"))


def test_scores_are_no_references(tmp_path):
    with pytest.raises(EvalError, match="references are labels"):
        read_labels(write(tmp_path, "ref.jsonl", JSONL))


@pytest.mark.parametrize(
    ("arrays_of", "message"),
    [
        ({"probs": np.eye(2)}, "has no 'ids'"),
        ({"ids": ["a", "b"]}, "has no 'probs'"),
        ({"ids": ["a", "b"], "probs": np.eye(3)}, "do not fit"),
        ({"ids": ["a", "b"], "probs": np.ones(2)}, "do not fit"),
        ({"ids": [], "probs": np.ones((0, 2))}, "do not fit"),
        ({"ids": ["a", "a"], "probs": np.eye(2)}, "ids occur twice ('a')"),
        ({"ids": ["a", "b"], "probs": np.eye(2) * np.nan}, "'probs' of 'a' is NaN"),
        ({"ids": ["a", "b"], "probs": np.array([["x"], ["y"]])}, "are no numbers"),
        ({"ids": ["a", "b"], "probs": np.eye(2), "classes": ["x"]}, "1 different classes for 2"),
    ],
)
def test_bad_npz(tmp_path, arrays_of, message):
    np.savez(tmp_path / "s.npz", **arrays_of)
    with pytest.raises(EvalError) as error:
        read_answers(tmp_path / "s.npz")
    assert message in str(error.value) and "s.npz" in str(error.value)


def test_bad_references_in_npz(tmp_path):
    for labels, message in (
        (np.array([[0.5], [1]]), "other values than 0 and 1"),
        (np.array([0, 7]), "no class numbers from 0 to 1"),
        (np.array([0, 0.5]), "no class numbers"),
    ):
        np.savez(tmp_path / "s.npz", ids=["a", "b"], labels=labels, probs=np.eye(2))
        with pytest.raises(EvalError, match=message):
            read_labels(tmp_path / "s.npz")


def test_files_that_are_no_npz(tmp_path):
    np.savez(tmp_path / "object.npz", ids=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("ids")
    whole = (tmp_path / "object.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("object", "text", "cut"):
        with pytest.raises(EvalError, match=rf"{name}\.npz is no \.npz"):
            read_answers(tmp_path / f"{name}.npz")
    with pytest.raises(EvalError, match="cannot read"):
        read_answers(tmp_path / "gone.npz")


@given(st.text(st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=80, deadline=None)
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "labels"
    path.write_bytes(text.encode())
    try:
        read = read_labels(path)
    except EvalError as error:
        assert str(path) in str(error)
    else:
        given = join(read, read)
        assert (given.truth == given.answers).all()


# The command


def run(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", "speechadapt_eval.cli.main", "labels", *args],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60,
        check=False,
    )  # fmt: skip


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_command(tmp_path):
    right, probabilities, given = one_each(60)
    names = ["собака", "cat", "rain", "bell", "door"]
    write(tmp_path, "ref", "".join(f"u{i} {names[k]}\n" for i, k in enumerate(right)))
    write(tmp_path, "folds", "".join(f"u{i} fold{i % 2}\n" for i in range(60)))
    rows = [
        json.dumps({"id": f"u{i}", "labels": dict(zip(names, row, strict=True))})
        for i, row in enumerate(probabilities.tolist())
    ]
    write(tmp_path, "hyp.jsonl", "\n".join(reversed(rows)) + "\n")
    args = ("ref", "hyp.jsonl", "--folds", "folds", "--samples", "100")
    done = run(tmp_path, *args, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 items, one label each, 5 classes" in done.stdout
    assert "In no reference, so in no mean: 'door'." in done.stdout
    found = {row["metric"]: row for row in rows_of(tmp_path / "out" / "tagging.csv")}
    expected = metrics.values(given, once(given))[0]
    for name, value in zip(metrics.METRICS, expected, strict=True):
        assert float(found[name]["value"]) == pytest.approx(value)
    assert float(found["ece"]["value"]) == pytest.approx(calibration(given).ece)
    classes = {row["label"]: row for row in rows_of(tmp_path / "out" / "tagging_class.csv")}
    assert set(classes) == set(names) and classes["door"]["average_precision"] == ""
    folds = rows_of(tmp_path / "out" / "folds.csv")
    assert [row["fold"] for row in folds] == ["fold0", "fold1", "mean", "sd"]
    counts = rows_of(tmp_path / "out" / "confusion.csv")
    assert sum(int(row[name]) for row in counts for name in names) == 60
    assert len(rows_of(tmp_path / "out" / "calibration.csv")) == 15
    report = json.loads(run(tmp_path, *args, "--json").stdout)
    assert report["figures"][0]["value"] == pytest.approx(expected[0])


def test_mistakes(tmp_path):
    write(tmp_path, "ref", "u1 a\nu2 b\n")
    write(tmp_path, "folds", "u1 1\n")
    for args, message in (
        (("ref",), "give the answers as HYP"),
        (("ref", "ref", "--bins", "0"), "give 1 or more"),
        (("ref", "ref", "--folds", "folds"), "1 items have no fold ('u2')"),
        (("ref", "ref", "--samples", "0"), "at least 1000"),
        (("ref", "gone"), "cannot read gone"),
    ):
        done = run(tmp_path, *args)
        assert done.returncode == 2 and message in done.stderr
        assert done.stderr.count("\n") == 1
