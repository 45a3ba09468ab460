"""The report of a run: complete, bounded, safe, and looked at by a browser."""

import base64
import csv
import json
import random
import re
import shutil
import struct
import subprocess
import wave
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Checked

from speechadapt_eval.cli.main import main
from speechadapt_eval.io import Row
from speechadapt_eval.outputs import write_csv
from speechadapt_eval.report import worst
from speechadapt_eval.report.alignment import marked
from speechadapt_eval.report.audio import Players
from speechadapt_eval.report.axis import Axis, short
from speechadapt_eval.report.chart import pareto
from speechadapt_eval.report.run_report import Report
from speechadapt_eval.report.scored import read_run
from speechadapt_eval.report.versus import compare_runs, render_comparison
from speechadapt_eval.runs.folder import Decoding, Run, RunSet, RunSystem
from speechadapt_eval.statistics.bootstrap import interval_of, paired_difference
from speechadapt_eval.transcripts.wer import align, score

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\'"`|*'
TEXTS = {
    "be": "чырвоная кветка расце ў садзе каля старой хаты",
    "ro": "pisica neagră doarme lângă soba caldă din bucătărie",
    "es": "el pájaro azul canta en la rama del viejo árbol",
    "en": "a small green boat drifts slowly down the quiet river",
    "ar": "القطة الصغيرة تنام بجانب النافذة في البيت القديم",
    "he": "הציפור הכחולה שרה על הענף של העץ הישן",
    "hi": "छोटी लाल चिड़िया पुराने पेड़ की डाल पर गाती है",
    "th": "นก สีฟ้า ร้องเพลง อยู่ บน กิ่งไม้ เก่า",
}
CONDITIONS = [(None, None), *((n, snr) for n in ("babble", "street") for snr in (0, 5, 10, 20))]
# Name, parameters trained, errors of a word in clean speech, seconds of an utterance.
SYSTEMS = [("frozen", 0, 0.25, 0.3), ("adapters", 812_032, 0.1, 0.33)]


def heard(words, share, rng):
    """What a system with that share of errors would write."""
    result = []
    for word in words:
        if rng.random() >= share:
            result.append(word)
        elif (kind := rng.random()) < 0.6:
            result.append(word[::-1])
        elif kind < 0.8:
            result += [word, word[:2]]
    return " ".join(result)


def write_run(path, seed=1, systems=SYSTEMS, each=54, languages=tuple(TEXTS), version="1.0"):
    """A run as the harness writes it: two systems, eight languages, noises, empty references."""
    rng, texts = random.Random(seed), random.Random(0)  # the texts of all runs are the same
    record = {
        "command": ["speechadapt-eval", "run", "--system", EVIL],
        "started": "2026-11-22T06:00:00+00:00",
        "versions": {"python": "3.11", "jiwer": version},
        "commit": "0123abc",
        "machine": {"cpu": "Some CPU", "cores": 2, "load_average": [rng.random()]},
        "seeds": {"bootstrap": 0},
        "normaliser": {"name": "unicode", "version": 1},
    }
    run = Run(
        path,
        tuple(RunSystem(n, f"cmd:{n} {{wav}} {EVIL}", 72_593_920, t) for n, t, _, _ in systems),
        tuple(
            RunSet(f"{lang}_test", f"data/{lang}/test", lang, each, 4.0 * each)
            for lang in languages
        ),
        record,
    )
    run.write()
    audio = path / "audio" / "a b#c?.wav"
    audio.parent.mkdir()
    with wave.open(str(audio), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    tables = {"wer": [], "pairs": [], "speed": []}
    for one in run.sets:
        refs = {}
        for k in range(each):
            words = TEXTS[one.language].split()
            texts.shuffle(words)
            refs[f"{one.language}-{k:03}"] = " ".join(words[: texts.randint(3, 8)])
        refs[f"{one.language}-000"] = ""
        refs[f"{one.language}-001 {EVIL}"] = f"{EVIL} {TEXTS[one.language]}"
        if one.language == "en":
            refs["en-long"] = " ".join(["word"] * 5000 + ["end"])
        conditions = {name: texts.choice(CONDITIONS) for name in refs}
        rates = []
        for name, _, share, seconds in systems:
            rows = []
            for utterance, ref in refs.items():
                noise, snr = conditions[utterance]
                worse = share * (1 if snr is None else 1 + 1.5 * (1 - snr / 25))
                fields = {
                    "speaker": f"{one.language}{sum(utterance.encode()) % 5}",
                    "seconds": seconds * rng.lognormvariate(0, 0.4),
                    "audio": str(audio),
                    "noise": noise,
                    "snr": snr,
                    "mos": round(
                        3.3 - (0 if snr is None else 1.6 - snr / 20) + rng.gauss(0, 0.2), 3
                    ),
                    "adapter": None
                    if name == "frozen"
                    else rng.choice([one.language] * 8 + ["ro"]),
                }
                hyp = heard(ref.split(), worse, rng) or ("noise" if rng.random() < 0.5 else "")
                rows.append(Row(utterance, ref, hyp, one.language, fields))
            total = sum(row.fields["seconds"] for row in rows)
            run.write_rows(name, one.name, rows, Decoding(total, 4.0 * each))
            rate = score({r.id: r.ref for r in rows}, {r.id: r.hyp for r in rows})
            rates.append(rate)
            interval = interval_of(rate, {r.id: r.fields["speaker"] for r in rows})
            counts = ("errors", "n_ref", "substitutions", "deletions", "insertions", "rate", "unit")
            tables["wer"].append(
                {"system": name, "set": one.name, "lang": one.language, "normalizer": "unicode"}
                | {key: getattr(rate, key) for key in counts}
                | {key: getattr(interval, key) for key in ("low", "high", "method", "note")}
                | {"utterances": len(rows), "speakers": 5}
            )
            tables["speed"].append(
                {"system": name, "set": one.name, "audio_seconds": 4.0 * each, "seconds": total}
                | {"rtf": total / (4.0 * each), "rtfx": 4.0 * each / total, "batched": False}
            )
        if len(rates) > 1:
            paired = paired_difference(rates[0], rates[1])
            keys = ("delta", "low", "high", "p_improvement", "level", "method", "note")
            tables["pairs"].append(
                {"baseline": systems[0][0], "system": systems[1][0], "set": one.name}
                | {key: getattr(paired, key) for key in keys}
            )
    for name, rows in tables.items():
        run.write_table(name, rows)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "monday")


@pytest.fixture(scope="module")
def report(run):
    assert main(["report", str(run)]) == 0
    return run / "report.html"


def numbers(run, name):
    with (run / "plots" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    records = json.loads((run / "plots" / f"{name}.json").read_text(encoding="utf-8"))
    as_csv = [{k: "" if v is None else str(v) for k, v in record.items()} for record in records]
    assert as_csv == rows
    return records


def test_page_is_whole_and_self_contained(report):
    html = report.read_text(encoding="utf-8")
    parsed = Checked(html)
    assert parsed.tags.count("script") == 1 and "img" not in parsed.tags
    assert not {name for name, _ in parsed.attributes} & {"onerror", "onclick", "style"}
    assert not re.search(r"https?://|url\(|@import|<link", html)
    assert {a for n, a in parsed.attributes if n == "href"} <= {
        f"plots/{path.name}" for path in (report.parent / "plots").iterdir()
    }
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids)) and {"overview", "table-wer", "table-speed"} <= set(ids)
    text = "".join(parsed.text)
    for part in ("Some CPU", "0123abc", "jiwer 1.0", "cmd:frozen {wav} " + EVIL, "4,701 more"):
        assert part in text
    assert ("dir", "auto") in parsed.attributes and ("lang", "ar") in parsed.attributes


def test_figures_are_there_with_their_numbers(run, report):
    expected = {"wer_by_set", "matrix", "wer_snr", "wer_mos", "wer_parameters", "wer_rtf"}
    expected |= {"latency_cdf", "routes"}
    assert {path.stem for path in (run / "plots").iterdir()} == expected
    for name in expected:
        assert numbers(run, name)
    table = {(row["system"], row["set"]): row for row in Run.read(run).table("wer")}
    for row in numbers(run, "wer_by_set"):
        assert row["rate"] == pytest.approx(float(table[row["system"], row["set"]]["rate"]))
    front = {row["system"]: row["not_beaten"] for row in numbers(run, "wer_parameters")}
    assert front == {"frozen": True, "adapters": True}


def test_rates_against_snr_are_those_of_the_utterances(run, report):
    rows = [
        row for one in Run.read(run).sets for row in Run.read(run).rows("frozen", one.name).values()
    ]
    for point in numbers(run, "wer_snr"):
        if point["system"] != "frozen":
            continue
        wanted = (None, None) if point["snr"] == "" else (point["noise"], point["snr"])
        mine = [row for row in rows if (row.fields["noise"], row.fields["snr"]) == wanted]
        rate = score({r.id: r.ref for r in mine}, {r.id: r.hyp for r in mine})
        assert point["rate"] == pytest.approx(rate.rate) and point["utterances"] == len(mine)
        assert point["low"] <= point["rate"] <= point["high"]
    noises = {(p["noise"], p["snr"]) for p in numbers(run, "wer_snr")}
    assert noises == {(n, s) for n in ("babble", "street") for s in (0, 5, 10, 20, "")}


def test_times_and_bins_hold_every_utterance(run, report):
    times = sorted(
        row.fields["seconds"]
        for one in Run.read(run).sets
        for row in Run.read(run).rows("adapters", one.name).values()
    )
    points = [p for p in numbers(run, "latency_cdf") if p["system"] == "adapters"]
    assert points[-1] == {"system": "adapters", "seconds": times[-1], "share": 1.0}
    for point in points:
        assert sum(t <= point["seconds"] for t in times) / len(times) == pytest.approx(
            point["share"], abs=1 / len(times)
        )
    bins = [b for b in numbers(run, "wer_mos") if b["system"] == "frozen"]
    assert sum(b["utterances"] for b in bins) == len(times)
    assert all(b["mos_from"] <= b["mos"] <= b["mos_to"] for b in bins)


def test_matrix_and_weights_are_those_of_the_tables(tmp_path):
    path = write_run(tmp_path / "run", each=4, languages=("be", "ro"))
    write_csv(
        path / "tables" / "matrix.csv",
        ("row", "kind", "set", "metric", "value", "low", "high", "delta"),
        [
            ("base", "base", "be", "wer", 0.5, 0.4, 0.6, None),
            ("base", "base", "ro", "wer", 0.25, 0.2, 0.3, None),
            ("oracle", "oracle", "be", "wer", 0.125, 0.1, 0.2, -0.375),
        ],
    )
    layers = [("encoder.0", "be", 0.75, 0.25), ("encoder.0", "ro", 0.5, 0.5)]
    layers += [("encoder.1", "be", 1.0, 0.0), ("encoder.1", "ro", 0.125, 0.875)]
    header = ("layer", "condition", "weight:be", f"weight:{EVIL}")
    write_csv(path / "tables" / "routing.csv", header, layers)
    write_csv(path / "tables" / "mos.csv", ("group", "ovrl", "low"), [("be", 3.25, 3.0)])
    write_csv(path / "tables" / "mos_utt.csv", ("id", "ovrl"), [("be-001", 3.25)])
    assert main(["report", str(path)]) == 0
    html = (path / "report.html").read_text(encoding="utf-8")
    text = Checked(html).text
    assert text.count("50.00") >= 1 and "-37.5" in text and "3.250" in text
    assert "Weights of adapters by layer: ro" in text and "0.88" in text
    assert 'id="table-mos"' in html and "mos_utt" not in html
    rows = numbers(path, "matrix")
    assert rows[2] == {"system": "oracle", "set": "be", "rate": 0.125, "delta": -0.375}
    weights = {
        (w["layer"], w["condition"], w["adapter"]): w["weight"] for w in numbers(path, "weights")
    }
    assert weights["encoder.1", "ro", EVIL] == 0.875 and len(weights) == 8


def test_markdown_has_no_markup_of_names(run, report):
    text = (run / "report.md").read_text(encoding="utf-8")
    code = re.sub(r"`[^`\n]*`", "", text)
    assert "<" not in code.replace("\\<", "") and "jiwer 1.0" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "## Overview" in text and "45." in text


def test_a_run_that_was_stopped_is_reported(tmp_path, capsys):
    path = write_run(tmp_path / "run", each=8, languages=("be", "ro"))
    shutil.rmtree(path / "tables")
    (path / "hyps" / "adapters" / "ro_test.jsonl").unlink()
    assert main(["report", str(path), "--out", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not there: adapters on ro_test." in html
    part = read_run(path).part("frozen", "ro_test")
    assert part.low < part.rate.rate < part.high and "5 speakers" in part.method
    for folder in ("frozen", "adapters"):
        shutil.rmtree(path / "hyps" / folder)
    assert main(["report", str(path), "--out", str(tmp_path / "out")]) == 0
    Checked((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none"], "is no folder"),
        (["run", "--show", "nobody"], "unknown system of run 'nobody': choose one of frozen"),
        (["run", "--worst", "-1"], "cannot be negative"),
        (["run", "--embed-audio", "nan"], "cannot be negative"),
        (["run", "--out", "run/run.json"], "cannot write"),
        (["bad"], "run.json is damaged"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", each=4, languages=("be",))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    assert main(["report", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def many(path, count, length, systems=SYSTEMS[:1]):
    """A run of many utterances in which every word is wrong."""
    run = Run(
        path,
        tuple(RunSystem(name, "cmd:x") for name, *_ in systems),
        (RunSet("en_test", "data", "en", count),),
    )
    run.write()
    ref, hyp = " ".join(["<&>gone" * 3] * length), " ".join(['"&<heard>' * 3] * length)
    for name, *_ in systems:
        rows = (Row(f"u{k:06}", ref, hyp, "en") for k in range(count))
        run.write_rows(name, "en_test", rows, Decoding())
    run.write_table(
        "wer",
        [
            {"system": name, "set": "en_test", "unit": "word", "normalizer": "none", "low": 1}
            for name, *_ in systems
        ],
    )
    return path


def test_a_hundred_thousand_utterances_stay_small(tmp_path):
    html = Report(read_run(many(tmp_path / "run", 100_000, 5))).html(tmp_path)
    assert html.count("<article") == 50
    assert "50 of 100,000 utterances; 99,950 are not shown." in html
    assert len(html.encode()) < 400_000


def test_very_long_utterances_stay_below_the_limit(tmp_path):
    scored = read_run(many(tmp_path / "run", 200, 350, SYSTEMS))
    html = Report(scored, worst=200).html(tmp_path)
    shown = html.count("<article")
    assert 20 < shown < 200 and f"{shown} of 200 utterances; {200 - shown} are not shown." in html
    assert worst.ROOM - 200_000 < len(html.encode()) < 5_000_000
    assert "… 50 more, 50 of them wrong" in html


@given(
    st.lists(st.sampled_from("abc"), max_size=900),
    st.lists(st.sampled_from("abc"), max_size=900),
)
@settings(max_examples=40, deadline=None)
def test_no_error_is_lost_in_folding(ref, hyp):
    ops = align(" ".join(ref), " ".join(hyp))
    html = marked(ops, " ")
    wrong = sum(op.kind != "equal" for op in ops)
    told = re.search(r"more, ([\d,]+) of them wrong", html)
    drawn = html.count('class="sub"') + html.count('class="gone"') + html.count('class="more"')
    assert drawn + (int(told[1].replace(",", "")) if told else 0) == wrong
    assert len(html) < 40_000


@given(
    st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1),
    st.booleans(),
)
def test_an_axis_holds_its_values(values, log):
    if log:
        values = [abs(value) for value in values]
    axis = Axis.over(values, log=log)
    assert len(axis.ticks) >= 2 and list(axis.ticks) == sorted(set(axis.ticks))
    shares = [
        axis.share(value) for value in sorted(values) if not log or value == 0 or value > 1e-9
    ]
    assert all(-1e-6 <= share <= 1 + 1e-6 for share in shares)
    assert all(a <= b + 1e-9 for a, b in pairwise(shares))


def test_ticks_are_round():
    assert Axis.over([0, 72]).ticks == (0, 20, 40, 60, 80)
    assert Axis.over([0.11, 1.9], log=True).ticks == (0.1, 0.2, 0.5, 1, 2)
    assert Axis.over([0, 3e3, 4e7], log=True).ticks == (0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
    labels = [short(x) for x in (0, 0.05, 500, 12_500, 1e6, 72.6e6, 2e9)]
    assert labels == ["0", "0.05", "500", "12.5k", "1M", "72.6M", "2G"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_pareto_front_by_definition(points):
    def beaten(p):
        return any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)

    assert pareto(points) == sorted({p for p in points if not beaten(p)})


def test_two_runs_compared(tmp_path, run, capsys):
    systems = [("adapters", 812_032, 0.05, 0.3), ("faster-whisper", 0, 0.2, 0.1)]
    other = write_run(tmp_path / "tuesday", 2, systems, languages=("be", "ro"), version="1.1")
    rows = Run.read(other).rows("adapters", "be_test")
    changed = [r for r in rows.values() if r.id != "be-002"]  # one is missing
    changed[3] = Row(changed[3].id, "another text", "", "be", changed[3].fields)
    Run.read(other).write_rows("adapters", "be_test", changed, Decoding())
    a, b = read_run(run), read_run(other)
    comparison = compare_runs(a, b)
    assert [(c.system, c.a.set) for c in comparison.changes] == [
        ("adapters", "be_test"),
        ("adapters", "ro_test"),
    ]
    be, ro = comparison.changes
    direct = paired_difference(
        a.part("adapters", "ro_test").rate,
        b.part("adapters", "ro_test").rate,
        b.part("adapters", "ro_test").speakers,
    )
    assert ro.paired == direct and ro.note == "" and ro.paired.delta < 0
    assert be.paired.delta == pytest.approx(be.rates[1] - be.rates[0])
    assert be.utterances == len(rows) - 2 and be.note.startswith("2 utterances")
    assert comparison.added == ("system 'faster-whisper'",)
    assert "system 'frozen'" in comparison.removed and "set 'th_test'" in comparison.removed
    facts = {name: (x, y) for name, x, y in comparison.facts}
    assert facts["versions.jiwer"] == ("1.0", "1.1")
    assert not {"started", "machine.load_average"} & facts.keys()
    text = render_comparison(comparison)
    assert "versions.jiwer" in text and "Only in B: system 'faster-whisper'" in text
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "c"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["changes"][1]["delta"] == pytest.approx(direct.delta)
    html = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "<h3>adapters · be_test · be-" in html
    assert (
        "From A (monday) to B (tuesday)" in html and "B: tuesday errs less than A: monday" in html
    )
    Checked(html)


def test_a_run_compared_with_itself_does_not_differ(run):
    scored = read_run(run)
    comparison = compare_runs(scored, scored)
    assert len(comparison.changes) == 16 and not comparison.facts
    assert not (comparison.added or comparison.removed)
    assert all(c.paired.delta == c.paired.low == c.paired.high == 0 for c in comparison.changes)


def test_runs_scored_in_other_ways_are_not_compared(tmp_path):
    one = read_run(many(tmp_path / "a", 5, 5))
    write_run(tmp_path / "b", languages=("en",), each=4)
    other = read_run(tmp_path / "b")
    (change,) = compare_runs(one, other).changes
    assert change.paired is None and "normalised as 'none'" in change.note
    assert "n/a" in change.cells() and "not compared" in render_comparison(compare_runs(one, other))


def test_recordings_by_address_or_inside(tmp_path, run):
    one = read_run(run)
    html = Report(one).html(run)
    assert 'src="audio/a%20b%23c%3F.wav"' in html and "base64" not in html
    assert 'src="../' in Report(one).html(tmp_path / "elsewhere")
    size = (run / "audio" / "a b#c?.wav").stat().st_size
    html = Report(one, embed=2 * size + 1, worst=5).html(run)
    assert html.count("data:audio/wav;base64,") == 2
    (recording,) = set(re.findall(r"base64,([\w+/=]+)", html))
    assert base64.b64decode(recording) == (run / "audio" / "a b#c?.wav").read_bytes()
    players = Players(run)
    played = players.player(str(run / "audio" / "a b#c?.wav"), 1.5, 2.25)
    assert 'a%20b%23c%3F.wav#t=1.5,2.25"' in played
    for none in (
        None,
        3,
        "sox x.sph -t wav - |",
        str(run / "gone.wav"),
        str(run / "run.json"),
        "\0.wav",
    ):
        assert players.player(none) == ""


# What a visitor of the page finds, in frames as wide as a phone and as a screen.
VISIT = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre><script>
const visits = [[390, "#sort=table-wer,2"], [1280, "#sort=table-wer,9,desc"]], found = [];
const column = (d, k) => [...d.querySelectorAll("#table-wer tbody tr")].map(
  row => row.cells[k].textContent);
// The browser's clock stands still while something is read, and runs ahead while media are opened.
const breath = () => new Promise(done => {
  const request = new XMLHttpRequest();
  request.onloadend = done;
  request.open("GET", "REPORT");
  request.send();
});
async function look([width, hash]) {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.src = "REPORT" + hash;
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  const d = frame.contentDocument, root = d.documentElement;
  const one = {width, inside: root.clientWidth, needed: root.scrollWidth};
  const heads = [...d.querySelectorAll("#table-wer th[scope=col]")];
  one.heads = heads.map(head => head.textContent);
  one.sorted = heads.findIndex(head => head.hasAttribute("aria-sort"));
  one.first = column(d, one.sorted);
  heads[5].querySelector("button").click();
  one.up = column(d, 5);
  heads[5].querySelector("button").click();
  one.down = column(d, 5);
  const audio = d.querySelector("audio");
  audio.preload = "metadata";
  for (let k = 0; k < 3000 && !audio.readyState && !audio.error; k++) await breath();
  one.seconds = audio.duration;
  one.unseen = [...d.querySelectorAll("figure svg[role=img], .bars svg")].filter(
    svg => svg.getBoundingClientRect().width < 100).length;
  found.push(one);
}
(async () => {
  for (const visit of visits) await look(visit);
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: the page is looked at where there is one")
    home = tmp_path_factory.mktemp("browser")

    def run_browser(address, *options):
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(
                "--allow-file-access-from-files",
                f"--user-data-dir={home}",
                "--enable-logging=stderr",
            ),
            *(*options, address),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return run_browser


@pytest.fixture(scope="module")
def visit(report, tmp_path_factory):
    page = tmp_path_factory.mktemp("visit") / "visit.html"
    page.write_text(VISIT.replace("REPORT", report.as_uri()), encoding="utf-8")
    return page.as_uri()


def test_a_browser_sorts_plays_and_fits(browse, visit):
    dom = browse(visit, "--dump-dom", "--virtual-time-budget=20000")
    phone, screen = json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom)[1])
    for one in (phone, screen):
        assert one["inside"] == one["needed"] == one["width"]
        assert one["heads"][5] == "substitutions"
        figures = [float(text.replace(",", "")) for text in one["up"]]
        assert figures == sorted(figures) and figures != sorted(figures, reverse=True)
        assert one["down"] == [f"{x:,.0f}" for x in sorted(figures, reverse=True)]
        assert one["seconds"] == pytest.approx(0.1)
        assert one["unseen"] == 0
    assert phone["sorted"] == 2 and phone["first"] == sorted(phone["first"])
    rates = [float(text) for text in screen["first"]]
    assert screen["sorted"] == 9 and rates == sorted(rates, reverse=True)


def test_a_browser_draws_it(browse, visit, tmp_path):
    shot = tmp_path / "shot.png"  # on a phone and on a screen, one below the other
    options = ("--window-size=1280,2000", "--virtual-time-budget=20000")
    browse(visit, *options, f"--screenshot={shot}")
    data = shot.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (1280, 2000)
    assert len(data) > 100_000  # a blank one has 10 kB


def test_a_browser_prints_it(browse, report, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(report.as_uri(), f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes()[:5] == b"%PDF-" and paper.stat().st_size > 50_000
