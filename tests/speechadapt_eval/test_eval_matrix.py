"""The matrix of adapters and test sets, from its definitions, and its command."""

import csv
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechadapt_eval.cli.main import main
from speechadapt_eval.errors import EvalError
from speechadapt_eval.routes.matrix import best_of, build, pool, right_or_wrong
from speechadapt_eval.statistics.bootstrap import paired_difference
from speechadapt_eval.transcripts.wer import score

WORDS = ["adzin", "dva", "try", "čatyry", "piać", "šeść"]
RATES = {
    ("frozen", "be"): 0.4, ("frozen", "ro"): 0.3, ("frozen", "en"): 0.1,
    ("be", "be"): 0.1, ("be", "ro"): 0.35, ("be", "en"): 0.3,
    ("ro", "be"): 0.45, ("ro", "ro"): 0.12, ("ro", "en"): 0.2,
    ("auto", "be"): 0.14, ("auto", "ro"): 0.13, ("auto", "en"): 0.12,
}  # fmt: skip


def make(seed=0, utterances=30):
    """References of three sets and hypotheses of each system with these shares of wrong words."""
    chance = random.Random(seed)
    refs = {
        name: {f"u{i}": chance.choices(WORDS, k=5) for i in range(utterances)}
        for name in ("be", "ro", "en")
    }
    hyps = {
        (row, name): {
            utt: ["x" if chance.random() < rate else word for word in words]
            for utt, words in refs[name].items()
        }
        for (row, name), rate in RATES.items()
    }
    return refs, hyps


def scored(refs, hyps):
    def text(table):
        return {utt: " ".join(words) for utt, words in table.items()}

    return {
        (row, name): score(text(refs[name]), text(table)) for (row, name), table in hyps.items()
    }


def errors(ref, hyp):
    return sum(r != h for r, h in zip(ref, hyp, strict=True))


def test_rows_that_are_made():
    refs, hyps = make()
    matrix = build(scored(refs, hyps), base="frozen", autos=["auto"], samples=200)
    assert matrix.rows == ["frozen", "be", "ro", "auto", "oracle", "best"]
    assert matrix.sets == ["be", "ro", "en", "all"]
    for name in ("be", "ro", "en"):
        own = name if name != "en" else "frozen"  # no adapter was trained for en
        assert matrix.cell("oracle", name).rate == matrix.cell(own, name).rate
        fewest = sum(
            min(errors(words, hyps[row, name][utt]) for row in ("frozen", "be", "ro"))
            for utt, words in refs[name].items()
        )
        assert matrix.cell("best", name).rate.errors == fewest
    for row in matrix.rows:
        singles = [matrix.cell(row, name).rate for name in ("be", "ro", "en")]
        assert matrix.cell(row, "all").rate.errors == sum(rate.errors for rate in singles)
        assert matrix.cell(row, "all").rate.n_ref == 3 * 30 * 5


def test_differences_and_regret_are_the_paired_bootstrap():
    rates = scored(*make())
    matrix = build(rates, base="frozen", autos=["auto"], samples=500, seed=3)
    options = {"samples": 500, "seed": 3}
    auto = matrix.cell("auto", "be")
    assert auto.delta == paired_difference(rates["frozen", "be"], rates["auto", "be"], **options)
    assert auto.against == "oracle"
    assert auto.regret == paired_difference(rates["be", "be"], rates["auto", "be"], **options)
    oracle = matrix.cell("oracle", "be")
    assert oracle.against == "best" and oracle.regret.delta >= 0
    assert matrix.cell("frozen", "be").delta is None and matrix.cell("be", "be").regret is None


def test_backward_transfer():
    rates = scored(*make())
    matrix = build(rates, base="frozen", autos=["auto"], samples=10)
    accuracy = {key: 1 - rate.rate for key, rate in rates.items()}
    expected = sum(accuracy["auto", name] - accuracy[name, name] for name in ("be", "ro")) / 2
    assert matrix.backward_transfer == {"auto": pytest.approx(expected)}
    nothing = build(rates, autos=["auto"], own={}, samples=10)
    assert math.isnan(nothing.backward_transfer["auto"])


def test_cells_may_be_missing():
    rates = scored(*make())
    del rates["be", "be"], rates["ro", "en"]
    matrix = build(rates, base="frozen", autos=["auto"], samples=10)
    assert matrix.cell("oracle", "be") is None  # its own adapter was not run: no stand-in
    assert matrix.cell("auto", "be").regret is None
    assert matrix.cell("ro", "all") is None and matrix.cell("frozen", "all") is not None
    one = build({("frozen", "be"): rates["frozen", "be"]}, base="frozen", samples=10)
    assert one.sets == ["be"] and one.rows == ["frozen", "oracle", "best"]


def test_speakers_are_blocks_over_all_sets():
    rates = scored(*make())
    speakers = {f"u{i}": f"s{i % 5}" for i in range(30)}
    matrix = build(rates, base="frozen", autos=["auto"], speakers=speakers, samples=50)
    assert matrix.cell("auto", "all").interval.n_clusters == 5
    assert matrix.cell("auto", "all").regret.n_clusters == 5


def test_refused():
    rates = scored(*make())
    for options, message in (
        ({"base": "no"}, "base 'no' was not measured: there are frozen, be, ro, auto"),
        ({"autos": ["no"]}, "auto 'no' was not measured"),
        ({"own": {"be": "no"}}, "adapter 'no' was not measured"),
        ({"own": {"no": "be"}}, "set 'no' was not measured: there are be, ro, en"),
    ):
        with pytest.raises(EvalError, match=message):
            build(rates, **options)
    with pytest.raises(EvalError, match="'oracle' is a row or column that is made here"):
        build({("oracle", "be"): rates["be", "be"]})
    other = scored(*make(seed=1))
    with pytest.raises(EvalError, match="different references"):
        build(rates | {("be", "be"): other["be", "be"]})


@given(st.lists(st.sampled_from(["a", "b", "a b", ""]), min_size=1, max_size=6), st.data())
def test_right_or_wrong_is_accuracy(refs, data):
    hyps = [data.draw(st.sampled_from(["a", "b", "A b!", ""])) for _ in refs]
    rate = right_or_wrong(
        score(dict(enumerate_ids(refs)), dict(enumerate_ids(hyps)), normalize="unicode")
    )
    same = sum(r == h.lower().strip("!") for r, h in zip(refs, hyps, strict=True))
    assert (rate.hits, rate.errors, rate.n_ref) == (same, len(refs) - same, len(refs))


def enumerate_ids(texts):
    return ((f"u{i}", text) for i, text in enumerate(texts))


def test_best_is_never_worse_and_pooling_keeps_ids_apart():
    rates = scored(*make())
    both = best_of([rates["be", "be"], rates["ro", "be"]])
    assert both.errors <= min(rates["be", "be"].errors, rates["ro", "be"].errors)
    pooled = pool({"be": rates["be", "be"], "ro": rates["be", "ro"]})
    ids = [u.id for u in pooled.utterances]
    assert ids == sorted(set(ids)) and len(ids) == 60 and "be/u0" in ids


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refs, hyps = make()
    for (row, name), table in hyps.items():
        path = tmp_path / row / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rows = (
            {
                "id": utt, "ref": " ".join(refs[name][utt]), "hyp": " ".join(words),
                "speaker": f"s{int(utt[1:]) % 6}",
            }
            for utt, words in table.items()
        )  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def run(capsys, *arguments):
    code = main(["matrix", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command(folder, capsys):
    files = sorted(folder.glob("*/*.jsonl"))
    options = ("--base", "frozen", "--auto", "auto", "--samples", "200")
    code, out, err = run(capsys, *files, *options, "--out", "tables")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["%WER", "be", "en", "ro", "all"]
    assert [line.split()[0] for line in lines[2:8]] == [
        "frozen", "be", "ro", "auto", "oracle", "best",
    ]  # fmt: skip
    assert "backward transfer of auto: " in out
    with (folder / "tables" / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 4
    auto = next(row for row in rows if (row["row"], row["set"]) == ("auto", "all"))
    oracle = next(row for row in rows if (row["row"], row["set"]) == ("oracle", "all"))
    assert auto["against"] == "oracle"
    expected = (int(auto["errors"]) - int(oracle["errors"])) / int(auto["n_ref"])
    assert float(auto["regret"]) == pytest.approx(expected)
    assert float(auto["regret_low"]) <= expected <= float(auto["regret_high"])
    found = json.loads(run(capsys, *files, *options, "--json")[1])
    assert found == json.loads((folder / "tables" / "matrix.json").read_text())


def test_command_with_named_cells_and_accuracy(folder, capsys):
    cells = ("a/keywords=be/be.jsonl", "f/keywords=frozen/be.jsonl")
    options = ("--base", "f", "--own", "a=keywords", "--accuracy", "--samples", "50", "--json")
    code, out, err = run(capsys, *cells, *options)
    found = json.loads(out)["cells"]
    assert (code, err) == (0, "")
    assert [(cell["row"], cell["set"]) for cell in found] == [
        (row, "keywords") for row in ("f", "a", "oracle", "best")
    ]
    refs, hyps = make()
    right = sum(refs["be"][utt] == words for utt, words in hyps["be", "be"].items())
    adapter = found[1]
    assert adapter["metric"] == "accuracy" and adapter["value"] == pytest.approx(right / 30)
    assert adapter["low"] <= adapter["value"] <= adapter["high"]


def test_command_refuses(folder, capsys):
    for arguments, message in (
        (["be/be.jsonl", "be/be=be/be.jsonl"], "system 'be' on set 'be' was given twice"),
        (["be=be/be.jsonl"], "'be=be/be.jsonl' names no system and set: write SYSTEM/SET=FILE"),
        (["be/be.jsonl", "--own", "be"], "--own 'be': write ADAPTER=SET"),
        (["be/no.jsonl"], "cannot read be/no.jsonl"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    (folder / "be" / "be.jsonl").write_text('{"id": "u1", "ref": "a"}\n')
    assert "be/be.jsonl: utterance 'u1' has no 'hyp'" in run(capsys, "be/be.jsonl")[2]
