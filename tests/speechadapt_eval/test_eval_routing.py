"""Routing: definitions, readers that refuse, and the command."""

import csv
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix

from speechadapt_eval.cli.main import main
from speechadapt_eval.errors import EvalError
from speechadapt_eval.routes.routing import (
    Decision,
    entropy,
    layers,
    read_decisions,
    read_layers,
    routed,
)
from speechadapt_eval.statistics.bootstrap import paired_difference
from speechadapt_eval.transcripts.wer import score

ADAPTERS = ["be", "es", "ro"]


def decide(count=60, seed=0):
    chance = np.random.default_rng(seed)
    decisions = []
    for i in range(count):
        condition = ADAPTERS[i % 3]
        shares = chance.dirichlet([4 if name == condition else 1 for name in ADAPTERS])
        weights = dict(zip(ADAPTERS, shares.tolist(), strict=True))
        decisions.append(Decision(f"u{i:02}", condition, weights, True))
    return decisions


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda w: sum(w) > 0.01))
def test_entropy_by_its_definition(weights):
    shares = [weight / math.fsum(weights) for weight in weights]
    nats = -math.fsum(share * math.log(share) for share in shares if share)
    assert entropy(weights) == pytest.approx(nats / math.log(len(weights)), abs=1e-12)
    assert -1e-12 <= entropy(weights) <= 1 + 1e-12


def test_entropy_at_its_ends():
    assert entropy([0, 1, 0]) == 0 and entropy([1]) == 0
    assert entropy([0.25] * 4) == pytest.approx(1)


def test_top1_and_confusion_are_sklearns():
    decisions = decide()
    *conditions, whole = routed(decisions, samples=100)
    true = [decision.condition for decision in decisions]
    chosen = [decision.chosen for decision in decisions]
    assert whole.condition == "all" and whole.utterances == 60
    assert whole.top1 == pytest.approx(accuracy_score(true, chosen))
    assert whole.interval.low <= whole.top1 <= whole.interval.high
    expected = confusion_matrix(true, chosen, labels=ADAPTERS)
    rows = {one.condition: one for one in conditions}
    found = [[rows[name].chosen[adapter] for adapter in ADAPTERS] for name in ADAPTERS]
    assert found == expected.tolist()
    for one in conditions:
        mine = [d for d in decisions if d.condition == one.condition]
        assert one.own == pytest.approx(np.mean([d.weights[one.condition] for d in mine]))
        entropies = [entropy(d.weights.values()) for d in mine]
        assert one.entropy == pytest.approx(np.mean(entropies))
        assert sum(one.weights.values()) == pytest.approx(1)


def test_a_choice_has_no_entropy_and_a_condition_may_have_no_adapter():
    decisions = [
        Decision("u1", "be", {"belarusian": 1.0}, False),
        Decision("u2", "xx", {"belarusian": 1.0}, False),
    ]
    be, other, whole = routed(decisions, own={"be": "belarusian"}, samples=10)
    assert be.top1 == 1 and math.isnan(be.entropy) and whole.top1 == 1
    assert math.isnan(other.top1) and math.isnan(other.own) and other.chosen == {"belarusian": 1}
    with pytest.raises(EvalError, match="adapter 'no' does not occur: there are belarusian"):
        routed(decisions, own={"be": "no"})
    with pytest.raises(EvalError, match="condition 'be2' does not occur: there are be, xx"):
        routed(decisions, own={"be2": "belarusian"})
    with pytest.raises(EvalError, match="condition 'all' is the row of all"):
        routed([*decisions, Decision("u3", "all", {"belarusian": 1.0}, False)])


def transcripts(decisions, seed=1):
    """Errors of each adapter: fewer on its own condition."""
    chance = random.Random(seed)
    refs = {decision.id: " ".join(chance.choices("abcd", k=6)) for decision in decisions}
    rates = {}
    for adapter in ADAPTERS:
        hyps = {}
        for decision in decisions:
            share = 0.1 if decision.condition == adapter else 0.5
            words = refs[decision.id].split()
            hyps[decision.id] = " ".join("x" if chance.random() < share else w for w in words)
        rates[adapter] = (refs, hyps)
    return rates


def test_regret_is_the_difference_to_the_named_adapter():
    decisions = decide()
    texts = transcripts(decisions)
    rates = {name: score(*sides) for name, sides in texts.items()}
    whole = routed(decisions, rates=rates, samples=300, seed=2)[-1]
    refs = texts["be"][0]
    named = {d.id: texts[d.condition][1][d.id] for d in decisions}
    chosen = {d.id: texts[d.chosen][1][d.id] for d in decisions}
    expected = paired_difference(score(refs, named), score(refs, chosen), samples=300, seed=2)
    assert whole.regret == expected and whole.regret.delta > 0
    del rates["es"]
    with pytest.raises(EvalError, match="the errors of adapter 'es' are not given"):
        routed(decisions, rates=rates)


def test_speakers_are_blocks():
    decisions = decide()
    speakers = {decision.id: f"s{i % 4}" for i, decision in enumerate(decisions)}
    assert routed(decisions, speakers=speakers, samples=20)[-1].interval.n_clusters == 4
    del speakers["u00"]
    with pytest.raises(EvalError, match=r"1 utterances have no speaker \('u00'\)"):
        routed(decisions, speakers=speakers)


LINE = {"id": "u1", "condition": "be", "weights": {"be": 0.75, "ro": 0.25}}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE, LINE], ":2: utterance 'u1' occurs a second time"),
        ([LINE | {"weights": {"be": 0.5, "ro": 0.4}}], ":1: the weights of 'u1' add up to 0.9"),
        ([LINE | {"weights": {"be": 1.5, "ro": -0.5}}], ":1: the weight of 'be' is no share"),
        ([LINE | {"weights": {"be": True}}], ":1: the weight of 'be' is no share"),
        ([LINE | {"weights": {"be": math.nan}}], ":1: the weight of 'be' is no share"),
        ([LINE | {"weights": []}], ":1: 'weights' of 'u1' is not an object"),
        ([LINE, LINE | {"id": "u2", "weights": {"be": 1}}], ":2: weights of other adapters than"),
        ([LINE | {"adapter": "be"}], ":1: 'u1' needs either 'weights' or 'adapter'"),
        ([{"id": "u1", "condition": "be"}], ":1: 'u1' needs either 'weights' or 'adapter'"),
        ([{"id": "u1", "condition": "be", "adapter": 1}], ":1: 'adapter' of 'u1' is not a name"),
        ([{"id": "u1", "adapter": "be"}], ":1: no text 'id' and text 'condition'"),
        (["be"], ":1: not an object with id"),
        (
            [LINE, {"id": "u2", "condition": "be", "adapter": "be"}],
            "some lines have weights, others a choice",
        ),
    ],
)
def test_damaged_decisions(tmp_path, lines, message):
    path = tmp_path / "decisions"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(EvalError) as error:
        read_decisions(path)
    assert message in str(error.value) and str(path) in str(error.value)


def weights_of(layer_count=2):
    chance = np.random.default_rng(0)
    return chance.dirichlet([1, 1, 1], (layer_count, 2)).transpose(0, 2, 1).astype(np.float32)


def test_layers(tmp_path):
    weights = weights_of()
    weights[0, :, 0] = [0.5, 0.5, 0]
    path = tmp_path / "fusion.npz"
    np.savez(path, weights=weights, adapters=ADAPTERS, conditions=["be", "babble"])
    found = layers(read_layers(path))
    assert [(one.layer, one.condition) for one in found] == [
        ("0", "be"), ("0", "babble"), ("1", "be"), ("1", "babble"),
    ]  # fmt: skip
    assert found[0].entropy == pytest.approx(math.log(2) / math.log(3)) and found[0].right
    assert found[0].own == 0.5 and found[1].right is None and math.isnan(found[1].own)
    for one in found:
        i, j = int(one.layer), ["be", "babble"].index(one.condition)
        assert one.chosen == ADAPTERS[weights[i, :, j].argmax()]
        assert list(one.weights.values()) == pytest.approx(weights[i, :, j].tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": weights_of()[0]}, r"float32 \[3, 2\] instead of"),
        ({"weights": weights_of() * 0.5}, "weights of layer 0 and condition be add up to 0.5"),
        ({"weights": -weights_of()}, "weights must be 0 or more"),
        ({"weights": weights_of() * np.nan}, "weights must be 0 or more"),
        ({"adapters": ["be", "es"]}, "2 names of adapters for 3 of them"),
        ({"adapters": ["be", "be", "es"]}, "2 names of adapters for 3 of them"),
        ({"conditions": None}, "no array 'conditions', only 'adapters', 'weights'"),
        ({"layers": ["a"]}, "1 names of layers for 2 of them"),
        ({"adapters": np.array(ADAPTERS, dtype=object)}, "cannot read .*pickle"),
    ],
)
def test_damaged_layers(tmp_path, change, message):
    arrays = {"weights": weights_of(), "adapters": ADAPTERS, "conditions": ["be", "x"]} | change
    path = tmp_path / "fusion.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(EvalError, match=message):
        read_layers(path)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "fusion.npz"
    for data in (b"", b"PK\x03\x04 cut", b"text"):
        path.write_bytes(data)
        with pytest.raises(EvalError, match="cannot read"):
            read_layers(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(EvalError, match="only 'array'; write it with"):
        read_layers(path)
    with pytest.raises(EvalError, match="cannot read"):
        read_layers(tmp_path / "none.npz")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decisions = decide()
    lines = (
        {"id": d.id, "condition": d.condition, "weights": d.weights, "note": 1} for d in decisions
    )
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, (refs, hyps) in transcripts(decisions).items():
        rows = ({"id": key, "ref": refs[key], "hyp": hyps[key]} for key in refs)
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(capsys, *arguments):
    code = main(["routing", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command(folder, capsys):
    wer = [part for name in ADAPTERS for part in ("--wer", f"{name}={name}.jsonl")]
    code, out, err = run(capsys, "d.jsonl", *wer, "--samples", "200", "--out", "tables")
    assert (code, err) == (0, "")
    assert out.startswith("condition  utterances  top-1 %")
    assert "\nchosen" in out and "\nregret" in out and "Intervals: does not cover" in out
    with (folder / "tables" / "routing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["condition"] for row in rows] == ["be", "es", "ro", "all"]
    assert sum(int(rows[0][f"chosen:{name}"]) for name in ADAPTERS) == 20
    assert float(rows[3]["regret_low"]) <= float(rows[3]["regret"]) <= float(rows[3]["regret_high"])
    found = json.loads(run(capsys, "d.jsonl", *wer, "--samples", "200", "--json")[1])
    assert found == json.loads((folder / "tables" / "routing.json").read_text())


def test_command_on_layers(folder, capsys):
    np.savez("fusion.npz", weights=weights_of(), adapters=ADAPTERS, conditions=["be", "noise"])
    code, out, err = run(capsys, "fusion.npz", "--own", "es=noise", "--out", "tables")
    assert (code, err) == (0, "") and " of 2 layers and conditions" in out
    with (folder / "tables" / "routing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["top1"] for row in rows][::2] == ["", ""] and rows[1]["top1"] in "01"
    assert float(rows[0]["weight:be"]) == pytest.approx(weights_of()[0, 0, 0])
    assert len(json.loads(run(capsys, "fusion.npz", "--json")[1])) == 4


def test_command_refuses(folder, capsys):
    np.savez("fusion.npz", weights=weights_of(), adapters=ADAPTERS, conditions=["be", "noise"])
    for arguments, message in (
        (["d.jsonl", "--own", "be"], "--own 'be': write ADAPTER=NAME"),
        (["d.jsonl", "--wer", "be.jsonl"], "--wer 'be.jsonl': write ADAPTER=NAME"),
        (["fusion.npz", "--wer", "be=be.jsonl"], "a .npz has only mean weights"),
        (["no.jsonl"], "cannot read no.jsonl"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
