"""``compare`` as a user runs it: several systems against the first."""

import json
import random

import pytest

from speechadapt_eval import paired_difference, score
from speechadapt_eval.cli.main import main
from speechadapt_eval.statistics.mapsswe import mapsswe
from speechadapt_eval.statistics.multiple import holm


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reference of 60 utterances by 30 speakers, and systems that err more or less often."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    refs = {f"u{i:02}": [rng.choice("abcdefgh") for _ in range(12)] for i in range(60)}

    def write(name, share, prefix=""):
        said = {
            k: [w if rng.random() >= share else "x" for w in words] for k, words in refs.items()
        }
        lines = [f"{prefix}{k} {' '.join(words)}\n" for k, words in said.items()]
        (tmp_path / name).write_text("".join(lines))

    for name, share in (("ref", 0), ("a", 0.4), ("b", 0.15), ("c", 0.4)):
        write(name, share)
        write(f"{name}2", share, "v")
    for name, lines in (
        ("utt2spk", (f"{k} s{i // 2}\n" for i, k in enumerate(refs))),
        ("one", (f"{k} s\n" for k in refs)),
        ("part", (f"{k} {' '.join(words)}\n" for k, words in list(refs.items())[:40])),
    ):
        (tmp_path / name).write_text("".join(lines))
    return tmp_path


def run(capsys, *args):
    code = main(["compare", *args])
    out, err = capsys.readouterr()
    assert code == 0 and err == ""
    return out


def texts(folder, *names):
    return [
        dict(line.split(" ", 1) for line in (folder / name).read_text().splitlines())
        for name in names
    ]


def test_table_of_two(folder, capsys):
    lines = run(capsys, "ref", "a", "b", "--margin", "1.5", "--utt2spk", "utt2spk").splitlines()
    assert lines[0].split()[:5] == ["system", "%WER", "95", "%", "CI"]
    assert lines[2].split()[0] == "A" and " / 720 " in lines[2] and lines[2].endswith("  a")
    assert lines[5].split()[5:] == ["P(better)", "segments", "Z", "p", "Holm", "p"]
    assert lines[7].startswith("B - A  -") and "  1.0000  " in lines[7]
    assert lines[9].startswith("B - A, margin +1.5 points: non-inferior, its interval ends at -")
    assert lines[10] == "CI: bootstrap over 30 speakers."
    assert lines[11] == "CI: paired bootstrap over 30 speakers."
    assert len(lines) == 12


def test_figures_are_those_of_the_library(folder, capsys):
    found = json.loads(run(capsys, "ref", "a", "b", "c", "--json", "--margin", "3"))
    refs, *hyps = texts(folder, "ref", "a", "b", "c")
    a, b, c = (score(refs, h) for h in hyps)
    assert [(s["name"], s["hyp"], s["errors"]) for s in found["systems"]] == [
        ("A", "a", a.errors), ("B", "b", b.errors), ("C", "c", c.errors),
    ]  # fmt: skip
    tests = [mapsswe(a, b), mapsswe(a, c)]
    corrected = holm([test.p for test in tests])
    for pair, other, test, p in zip(found["pairs"], (b, c), tests, corrected, strict=True):
        paired = paired_difference(a, other)
        assert pair["paired"]["delta"] == paired.delta and pair["paired"]["low"] == paired.low
        assert pair["mapsswe"]["z"] == test.z and pair["mapsswe"]["p"] == test.p
        assert pair["mapsswe"]["p_holm"] == p
        assert pair["non_inferior"] == {"margin": 0.03, "holds": paired.non_inferior(0.03)}
    assert found["pairs"][0]["non_inferior"]["holds"]


def test_three_verdicts(folder, capsys):
    verdicts = {
        margin: run(capsys, "ref", "b", "a", "--margin", margin).splitlines()[9]
        for margin in ("40", "3", "25")
    }
    assert "margin +40 points: non-inferior, its interval ends at" in verdicts["40"]
    assert "margin +3 points: inferior, its interval begins at" in verdicts["3"]
    assert "margin +25 points: not shown, its interval ends at" in verdicts["25"]


def test_pooled_sets(folder, capsys):
    pooled = json.loads(run(capsys, "ref", "a", "b", "--and", "ref2", "a2", "b2", "--json"))
    one, two = (
        json.loads(run(capsys, *names, "--json"))
        for names in (("ref", "a", "b"), ("ref2", "a2", "b2"))
    )
    for index in (0, 1):
        parts = [found["systems"][index]["errors"] for found in (one, two)]
        assert pooled["systems"][index]["errors"] == sum(parts)
        assert pooled["systems"][index]["sentences"] == 120


def test_warns_of_one_voice_and_of_what_is_missing(folder, capsys):
    one = run(capsys, "ref", "a", "b", "--utt2spk", "one")
    assert one.splitlines()[-1] == ("warning: does not cover other speakers: there is only one.")
    part = run(capsys, "ref", "part", "b", "--mode", "all")
    assert "A: 20 utterances without a hypothesis." in part.splitlines()
    present = json.loads(run(capsys, "ref", "part", "b", "--mode", "present", "--json"))
    assert [s["sentences"] for s in present["systems"]] == [40, 40]


def test_a_system_against_itself(folder, capsys):
    pair = json.loads(run(capsys, "ref", "a", "a", "--json"))["pairs"][0]
    assert pair["paired"]["delta"] == pair["mapsswe"]["z"] == 0 and pair["mapsswe"]["p"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ref", "a"], "1 hypothesis files: compare needs REF and 2 to 26"),
        (["ref", "a", "b", "--and", "ref2", "a2"], "--and ref2: 2 files where the first set has 3"),
        (["ref", "a", "b", "--margin", "-1"], "margin -1: give the points"),
        (["ref", "a", "b", "--margin", "nan"], "margin nan: give the points"),
        (["ref", "a", "part"], "20 ids have no hypothesis"),
        (["ref", "a", "b", "--and", "ref", "a", "b"], "60 ids occur in another set as well"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder, capsys, args, message):
    assert main(["compare", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
