"""Listening tests: what the reader takes, whom the screening leaves out, what the scores say."""

import csv
import io
import json
import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError
from speechadapt_eval.cli.main import main
from speechadapt_eval.listening.mos import clip_mos, mos_pairs, system_mos
from speechadapt_eval.listening.ratings import COLUMNS, SCALES, Rating, read_ratings
from speechadapt_eval.listening.screening import kept, screen
from speechadapt_eval.statistics.crossed import crossed_difference, crossed_mean, tabulate

ACR, MUSHRA = SCALES["acr"], SCALES["mushra"]
HEADER = "rater,clip,system,score,kind,expected,session\n"


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def made(seed=1, raters=10, clips=12, systems=(("base", 2.5), ("good", 3.6))):
    """Ratings with a rater's, a clip's and a residual effect."""
    rng = np.random.default_rng(seed)
    rater, clip = rng.normal(0, 0.5, raters), rng.normal(0, 0.4, clips)
    return [
        Rating(f"r{r:02}", f"c{c:02}", name, float(np.clip(np.round(
            mean + rater[r] + clip[c] + rng.normal(0, 0.7)), 1, 5)))
        for r in range(raters) for c in range(clips) for name, mean in systems
    ]  # fmt: skip


def test_reads_what_the_issue_names(tmp_path):
    path = write(
        tmp_path / "r.csv",
        "\ufeffscore, rater,clip,system,kind,expected\r\n"
        '4,anna,"a, b",base,,\r\n'
        "\r\n"
        "5,anna,g,,gold,4.0\r\n",
    )
    assert read_ratings([path], ACR) == [
        Rating("anna", "a, b", "base", 4),
        Rating("anna", "g", "", 5, "gold", 4),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r,c,s,6,,,", "score '6' is not a whole number from 1 to 5; --scale mushra takes 0 to"),
        ("r,c,s,3.5,,,", "score '3.5' is not a whole number"),
        ("r,c,s,nan,,,", "score 'nan'"),
        ("r,c,s,1_0,,,", "score '1_0'"),
        ("r,c,s,,,,", "score ''"),
        ("r,c,s,3,tset,,", "unknown kind 'tset': choose one of test, gold, trap, anchor, ref"),
        (",c,s,3,,,", "no rater"),
        ("r,c,,3,,,", "no system"),
        ("r,c,,3,trap,,", "a line of kind 'trap' needs an expected score"),
        ("r,c,s,3,,4,", "a line of kind 'test' has no expected score"),
        ("r,c,s,3,gold,9,", "expected '9'"),
        ("r,c,s,3", "4 cells, the header has 7 columns"),
        ('r,c,s,3,,,"', "not a CSV line"),
        ("ok,c,s,4,,,", "rater 'ok' rated clip 'c' of 's' already in"),
        ("r,c,s,4,anchor,,", "system 's' is of kind 'anchor' here but of kind 'test' in"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "r.csv", f"{HEADER}ok,c,s,3,,,\n{line}\n")
    with pytest.raises(EvalError) as caught:
        read_ratings([path], ACR)
    assert str(caught.value).startswith(f"{path}:3: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "is empty: expected a header with rater,clip,system,score"),
        ("rater;clip;system;score\n", ":1: no column rater, clip, system, score in the header; s"),
        ("rater,clip,system\n", ":1: no column score in the header"),
        (HEADER.replace("session", "sesion"), ":1: unknown column 'sesion'; known are rater,"),
        ("rater,clip,system,score,score\n", ":1: a column occurs twice"),
        (HEADER + "r,g,,5,gold,5,\n", "gold clips and traps only"),
        (b"rater\xff", "byte 6 is not UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(tmp_path, data, message):
    with pytest.raises(EvalError) as caught:
        read_ratings([write(tmp_path / "r.csv", data)], ACR)
    assert str(tmp_path / "r.csv") in str(caught.value) and message in str(caught.value)


def test_a_file_given_twice(tmp_path):
    path = write(tmp_path / "r.csv", f"{HEADER}r,c,s,3,,,1\nr,c,s,3,,,2\n")
    assert len(read_ratings([path], ACR)) == 2  # two sessions
    with pytest.raises(EvalError, match="already in"):
        read_ratings([path, path], ACR)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES, st.integers(1, 5), NAMES), min_size=1),
       st.randoms(use_true_random=False))  # fmt: skip
def test_any_names_survive_the_file(tmp_path_factory, rows, rng):
    rows = list({(*names, session): (*names, n, session) for *names, n, session in rows}.values())
    columns = [*COLUMNS]
    rng.shuffle(columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for rater, clip, system, score, session in rows:
        writer.writerow({"rater": rater, "clip": clip, "system": system, "score": score,
                         "session": session})  # fmt: skip
    path = write(tmp_path_factory.mktemp("r") / "r.csv", text.getvalue())
    assert read_ratings([path], ACR) == [
        Rating(r, c, s, n, session=session) for r, c, s, n, session in rows
    ]


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_make_it_crash(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("r") / "r.csv", HEADER.encode() + data)
    try:
        read_ratings([path], ACR)
    except EvalError as error:
        assert str(path) in str(error)


def test_screening_leaves_out_who_fails_and_says_why():
    ratings = made(systems=(("base", 2), ("mid", 3), ("good", 4)))
    rng = random.Random(2)
    checks = {"r00": (5, 2), "r01": (3, 2), "r02": (5, 3), "r03": (4, 2)}
    for name, (gold, trap) in checks.items():
        ratings += [Rating(name, "g", "", gold, "gold", 5), Rating(name, "t", "", trap, "trap", 2)]
    changed = []
    for r in ratings:
        score = {"r04": 3, "r05": rng.randint(1, 5)}.get(r.rater, r.score)
        changed.append(Rating(r.rater, r.clip, r.system, score, r.kind, r.expected))
    changed += [Rating("short", "c00", "base", 2), Rating("short", "c01", "base", 4)]
    found = {rater.name: rater for rater in screen(changed, ACR)}
    assert found["r00"].kept and found["r03"].kept  # one off the gold clip is near enough
    assert found["r01"].reasons == ("1 of 1 gold clips missed",)
    assert found["r02"].reasons == ("1 of 1 traps missed",)
    assert found["r04"].reasons == ("variance 0 of the ratings below 0.1",)
    assert found["r05"].reasons[0].startswith("correlation")
    assert found["short"].reasons == ("2 ratings, fewer than 5",)
    assert [name for name, rater in found.items() if not rater.kept] == [
        "r01", "r02", "r04", "r05", "short",
    ]  # fmt: skip
    good = kept(changed, list(found.values()))
    assert {r.rater for r in good} == {n for n, rater in found.items() if rater.kept}
    assert not {r.kind for r in good} & {"gold", "trap"}


def test_correlation_is_with_the_mean_of_the_other_trusted_raters():
    ratings = made(seed=3)
    ratings += [Rating("liar", r.clip, r.system, 6 - r.score) for r in ratings if r.rater == "r00"]
    ratings.append(Rating("liar", "t", "", 1, "trap", 5))
    found = {rater.name: rater for rater in screen(ratings, ACR)}
    cells = {}
    for r in ratings:
        if r.kind == "test":
            cells.setdefault((r.clip, r.system), {})[r.rater] = r.score
    others = {
        name: [np.mean([s for who, s in cell.items() if who not in (name, "liar")])
               for cell in cells.values()]
        for name in ("r03", "liar")
    }  # fmt: skip
    for name, means in others.items():
        own = [cell[name] for cell in cells.values()]
        assert math.isclose(found[name].correlation, np.corrcoef(own, means)[0, 1])
    assert len(found["liar"].reasons) == 2


def test_sounds_that_are_alike_condemn_nobody():
    """With nothing to agree on, correlations are noise."""
    rng = np.random.default_rng(4)
    ratings = [
        Rating(f"r{r}", f"c{c}", "s", float(rng.integers(2, 5)))
        for r in range(8) for c in range(20)
    ]  # fmt: skip
    assert all(rater.kept for rater in screen(ratings, ACR))


def test_honest_raters_of_similar_systems_stay():
    dropped = sum(
        not rater.kept
        for seed in range(20)
        for rater in screen(made(seed, clips=20, systems=(("a", 2.9), ("b", 3.6))), ACR)
    )
    assert dropped <= 0.03 * 200


def test_mushra_hears_the_hidden_reference():
    def rater(name, scores):
        return [
            Rating(name, f"c{i}", system, score, kind)
            for i, hidden in enumerate(scores)
            for system, kind, score in
            (("ref", "ref", hidden), ("low", "anchor", 20 + i), ("s", "test", 60 + i))
        ]  # fmt: skip

    ratings = rater("fine", [100, 95, 90, 92, 99, 100, 89]) + rater("deaf", [100] * 5 + [89, 50])
    found = {rater.name: rater for rater in screen(ratings, MUSHRA)}
    assert found["fine"].kept and found["fine"].references_low == 1  # 1 of 7 is under 15 %
    assert found["deaf"].reasons == ("2 of 7 hidden references below 90",)
    assert screen(ratings, ACR)[0].references == 0  # a rule of MUSHRA only


def test_mean_scores_against_the_formulas():
    ratings = made()
    rng = random.Random(5)
    ratings = rng.sample(ratings, k=180)  # cells are missing
    found = {mos.system: mos for mos in system_mos(ratings, samples=500)}
    for name, mos in found.items():
        scores = [r.score for r in ratings if r.system == name]
        assert math.isclose(mos.mos, np.mean(scores)) and mos.ratings == len(scores)
        reach = 1.959963985 * np.std(scores, ddof=1) / math.sqrt(len(scores))
        assert np.allclose(mos.naive, (mos.mos - reach, mos.mos + reach))
        means = [
            np.mean([r.score for r in ratings if (r.system, r.rater) == (name, who)])
            for who in {r.rater for r in ratings if r.system == name}
        ]
        student = scipy.stats.t.interval(
            0.95, len(means) - 1, np.mean(means), scipy.stats.sem(means)
        )
        assert np.allclose(mos.student, student)
        assert mos.interval.low < mos.mos < mos.interval.high
        assert mos.interval.high - mos.interval.low > 2 * reach
    assert [mos.system for mos in system_mos(ratings, samples=10)] == ["good", "base"]
    for clip in clip_mos(ratings):
        scores = [r.score for r in ratings if (r.system, r.clip) == (clip.system, clip.clip)]
        assert math.isclose(clip.mos, np.mean(scores)) and clip.ratings == len(scores)


def test_crossed_bootstrap_agrees_with_resampling_one_by_one():
    rng = np.random.default_rng(6)
    scores = rng.normal(3, 1, (8, 9))
    there = rng.random((8, 9)) < 0.6
    r, c = np.nonzero(there)
    names = [f"r{i}" for i in range(8)], [f"c{i}" for i in range(9)]
    table = tabulate(
        scores[there], [names[0][i] for i in r], [names[1][i] for i in c],
        all_raters=names[0], all_clips=names[1],
    )  # fmt: skip
    plain = []
    for _ in range(20_000):
        cells = np.ix_(rng.integers(0, 8, 8), rng.integers(0, 9, 9))
        plain.append(scores[cells][there[cells]].mean() if there[cells].any() else math.nan)
    ours = crossed_mean(table, samples=20_000)
    # Stretched about the mean to the two-way clustered standard error and to t.
    mean = scores[there].mean()
    off = np.where(there, scores - mean, 0) / there.sum()
    by_rater = 8 / 7 * sum(row.sum() ** 2 for row in off)
    by_clip = 9 / 8 * sum(column.sum() ** 2 for column in off.T)
    error = math.sqrt(max(by_rater + by_clip - (off**2).sum(), by_rater, by_clip))
    freedom = (by_rater + by_clip) ** 2 / (by_rater**2 / 7 + by_clip**2 / 8)
    stretch = error / np.nanstd(plain) * scipy.stats.t.ppf(0.975, freedom) / 1.959963985
    ends = mean + stretch * (np.nanquantile(plain, [0.025, 0.975]) - mean)
    assert np.allclose([ours.low, ours.high], ends, atol=0.02)
    assert ours.method == "crossed bootstrap over 8 raters and 9 clips" and ours.note == ""


def test_the_order_of_lines_changes_nothing_and_the_seed_does():
    ratings = made()
    shuffled = random.Random(7).sample(ratings, k=len(ratings))
    assert system_mos(ratings, samples=300) == system_mos(shuffled, samples=300)
    assert mos_pairs(ratings, samples=300) == mos_pairs(shuffled, samples=300)
    assert clip_mos(ratings) == clip_mos(shuffled)
    assert screen(ratings, ACR) == screen(shuffled, ACR)
    assert system_mos(ratings, samples=300) != system_mos(ratings, samples=300, seed=1)


def test_pairs_are_sharper_than_two_intervals():
    ratings = made(systems=(("a", 3), ("b", 3.5), ("c", 3)))
    pairs = mos_pairs(ratings, samples=500)
    assert [(p.a, p.b) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    mos = {m.system: m for m in system_mos(ratings, samples=500)}
    cells = {
        system: [
            np.mean([r.score for r in ratings if (r.system, r.clip) == (system, f"c{c:02}")])
            for c in range(12)
        ]
        for system in "abc"
    }
    for pair in pairs:
        assert math.isclose(pair.delta, mos[pair.b].mos - mos[pair.a].mos)
        alone = [mos[name].interval for name in (pair.a, pair.b)]
        apart = math.hypot(*(interval.high - interval.low for interval in alone))
        assert pair.interval.high - pair.interval.low < 0.9 * apart
        gain = np.round(np.subtract(cells[pair.b], cells[pair.a]), 9)
        assert math.isclose(pair.p, scipy.stats.wilcoxon(gain).pvalue) and pair.clips == 12
        assert pair.p_holm >= pair.p
    swapped = [Rating(r.rater, r.clip, {"a": "b", "b": "a"}.get(r.system, "c"), r.score)
               for r in ratings]  # fmt: skip
    assert math.isclose(mos_pairs(swapped, samples=10)[0].delta, -pairs[0].delta)


def test_what_cannot_be_said():
    one = [Rating("r", f"c{i}", "s", 3) for i in range(3)]
    mos = system_mos(one, samples=10)[0]
    assert math.isnan(mos.interval.low) and mos.interval.note.startswith("fewer than two raters")
    assert math.isnan(mos.student[0]) and mos.naive == (3, 3)
    same = [Rating(f"r{i % 2}", f"c{i // 2}", "s", 3) for i in range(4)]
    constant = system_mos(same, samples=10)[0].interval
    assert (constant.low, constant.high) == (3, 3)
    corner = tabulate([1.0, 2.0], ["r", "q"], ["c", "d"], all_raters="qr", all_clips="cd")
    nothing = [crossed_mean(corner, samples=1, seed=seed) for seed in range(20)]
    assert any(i.note.startswith("no rater that was drawn") for i in nothing)
    apart = [Rating("r", "c", "a", 1), Rating("r", "d", "b", 2)]
    pair = mos_pairs(apart, samples=10)[0]
    assert pair.clips == 0 and math.isnan(pair.p) and math.isnan(pair.p_holm)
    alike = mos_pairs([Rating("r", "c", "a", 1), Rating("r", "c", "b", 1)], samples=10)[0]
    assert alike.p == 1
    table = tabulate([1.0], ["r"], ["c"], all_raters=["r"], all_clips=["c"])
    wide = tabulate([1.0], ["r"], ["c"], all_raters=["r"], all_clips=["c", "d"])
    with pytest.raises(EvalError, match="same raters and clips"):
        crossed_difference(table, wide)
    with pytest.raises(EvalError, match="0 bootstrap samples"):
        crossed_mean(table, samples=0)


@pytest.fixture
def ratings_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{r.rater},{r.clip},{r.system},{r.score:g},,,\n" for r in made()]
    rows += ["r00,t,,3,trap,2,\n", "r01,t,,2,trap,2,\n"]
    write(tmp_path / "r.csv", HEADER + "".join(rows))
    return tmp_path


def test_command(ratings_csv, capsys):
    assert main(["ratings", "r.csv", "--samples", "500", "--out", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "9 of 10 raters passed the screening."
    assert lines[1] == "left out r00: 1 of 1 traps missed"
    assert lines[5].split()[:2] == ["good", "test"] and lines[10].startswith("good - base")
    assert lines[-1] == "CI: crossed bootstrap over raters and clips."
    tables = {}
    for path in (ratings_csv / "out").iterdir():
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.name] = list(csv.DictReader(file))
    assert {name: len(rows) for name, rows in tables.items()} == {
        "mos_system.csv": 2, "mos_clip.csv": 24, "raters.csv": 10, "pairs.csv": 1,
    }  # fmt: skip
    assert tables["raters.csv"][0]["kept"] == "no" and tables["raters.csv"][1]["kept"] == "yes"
    assert main(["ratings", "r.csv", "--samples", "500", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["systems"][0]["mos"] == float(tables["mos_system.csv"][0]["mos"])
    assert found["pairs"][0]["delta"] == float(tables["pairs.csv"][0]["delta"])
    assert [rater["kept"] for rater in found["raters"]] == [False] + [True] * 9


def test_mistakes_are_one_line(ratings_csv, capsys):
    for args, message in (
        (["nothing.csv"], "cannot read nothing.csv"),
        (["r.csv", "--min-ratings", "100"], "no rater passed the screening (r00: 1 of 1 traps"),
        (["r.csv", "--samples", "0"], "0 bootstrap samples"),
    ):
        assert main(["ratings", *args]) == 2
        out, err = capsys.readouterr()
        assert out == "" and message in err and err.count("\n") == 1
