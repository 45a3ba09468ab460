"""Latency of streams: definitions, agreement with other tools, damaged logs, the command."""

import json
import math
import random
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechadapt_eval.cli.main import main
from speechadapt_eval.errors import EvalError
from speechadapt_eval.speed.events import Event, Stream, read_ctm, read_events, read_segments
from speechadapt_eval.speed.latency import (
    Part,
    emissions,
    lag,
    measure,
    stream_laal,
    summarize,
)

FIXTURE = json.loads(
    (Path(__file__).parent / "fixtures" / "latency.json").read_text(encoding="utf-8")
)  # figures of SimulEval, OmniSTEval and simulstream, see make_latency_fixture.py


def stream(*events, name="u"):
    return Stream(name, tuple(Event(*event) for event in events))


def laal_of(recording, parts):
    return stream_laal([recording], [measure(recording, [], str.split)], [parts])


def as_events(name, case, end):
    """The words of a fixture in the form that streams are logged; its times are milliseconds."""
    words, shown = case["hyp"].split(), []
    lines = []
    for said, audio, wall in zip(words, case["delays"], case["elapsed"], strict=True):
        shown.append(said)
        lines.append([audio / 1000, wall / 1000, " ".join(shown), False])
    lines.append([end / 1000, max(end, case["elapsed"][-1]) / 1000, case["hyp"], True])
    keys = ("audio_s", "wall_s", "text", "final")
    return [{"utterance": name} | dict(zip(keys, line, strict=True)) for line in lines]


def write_events(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_agrees_with_simuleval_and_omnisteval(tmp_path):
    cases = FIXTURE["short"]
    lines = [as_events(f"u{i}", case, case["source_length"]) for i, case in enumerate(cases)]
    mixed = [line for those in lines for line in those]
    streams = read_events(write_events(tmp_path / "e", mixed))
    measured = [
        measure(streams[f"u{i}"], case["ref"].split(), str.split) for i, case in enumerate(cases)
    ]
    for one, case in zip(measured, cases, strict=True):
        for tool in ("simuleval", "omnisteval"):
            for metric in ("al", "laal"):
                for clock, suffix in ((one.audio, ""), (one.wall, "_ca")):
                    theirs = case[f"{tool}_{metric}{suffix}"] / 1000
                    assert getattr(clock, metric) == pytest.approx(theirs, abs=1e-9)
    summary = summarize(measured)
    assert summary.laal == pytest.approx(fmean(c["simuleval_laal"] for c in cases) / 1000)
    assert summary.al_ca == pytest.approx(fmean(c["simuleval_al_ca"] for c in cases) / 1000)


def test_fixture_covers_the_cases_of_the_definition():
    cases = FIXTURE["short"]
    assert any(case["elapsed"][0] > case["source_length"] for case in cases)
    assert any(case["delays"][-1] < case["source_length"] for case in cases)
    lengths = [(len(case["hyp"].split()), len(case["ref"].split())) for case in cases]
    assert any(hyp > ref for hyp, ref in lengths) and any(hyp < ref for hyp, ref in lengths)


@pytest.mark.parametrize("case", FIXTURE["long"])
def test_stream_laal_agrees_with_simulstream(tmp_path, case):
    last = case["segments"][-1]
    end = max(last["start"] + last["duration"], case["delays"][-1])
    (recording,) = read_events(write_events(tmp_path / "e", as_events("r", case, end))).values()
    parts = [
        Part(part["start"] / 1000, part["duration"] / 1000, tuple(part["ref"].split()))
        for part in case["segments"]
    ]
    found = laal_of(recording, parts)
    assert (found.segments, found.empty) == (6, 0)
    for value, suffix in ((found.audio, ""), (found.wall, "_ca")):
        assert value == pytest.approx(case["simulstream_laal" + suffix] / 1000, abs=1e-9)
        assert value == pytest.approx(case["omnisteval_laal" + suffix] / 1000, abs=1e-9)


def test_words_without_counterpart_at_a_border_and_empty_segments():
    parts = [Part(0, 2, ("a", "b")), Part(2, 2, ("c",)), Part(4, 2, ("d", "e"))]
    recording = stream((1, 1, "a"), (3, 3.5, "a b x"), (6, 6.5, "a b x d e"))
    # x goes on after b or stands for c: the alignment with the fewest errors takes it for c.
    found = laal_of(recording, parts)
    first = (1 + (3 - 1)) / 2
    second = 3 - 2
    third = 6 - 4  # the first word is at the end already
    assert found.audio == pytest.approx((first + second + third) / 3)
    short = stream((1, 1, "a b"), (6, 6.5, "a b d e"))
    found = laal_of(short, parts)
    assert (found.segments, found.empty) == (2, 1)
    with pytest.raises(EvalError, match="no word was found for any of 3 segments"):
        laal_of(stream((6, 6, "")), parts)
    assert laal_of(short, [Part(0, 6, ())]).segments == 1  # all inserted


def test_a_word_counts_when_it_and_all_before_it_stay():
    shown = stream((1, 1.5, "a b"), (2, 2.5, "x b c"), (3, 3.5, "a b c"), (4, 4.5, "a b c d"))
    assert emissions([event.text.split() for event in shown.events]) == [2, 2, 2, 3]
    one = measure(shown, ["a", "b"], str.split)
    assert (one.unstable_words, one.unstable_partials, one.partials) == (2 + 3, 2, 3)
    assert (one.first_partial, one.finalisation) == (1.5, 0.5)
    assert one.audio.words == (3, 3 - 1, 3 - 2, 4 - 3)
    assert one.wall.words == (3.5, 2.5, 1.5, 1.5)


def test_case_and_punctuation_take_nothing_back_once_normalised():
    shown = stream((1, 1, "hello"), (2, 2, "Hello, world"))
    assert measure(shown, [], str.split).unstable_words == 1
    assert measure(shown, [], lambda t: t.lower().replace(",", "").split()).unstable_words == 0


def test_computation_is_what_the_clock_ran_beyond_audio_and_the_event_before():
    shown = stream((1, 1.4, "a"), (1, 1.5, "a b"), (2, 3.0, "a b"), (2.5, 3.25, "a b c"))
    one = measure(shown, ["a"], str.split)
    assert one.compute == pytest.approx((0.4, 0.1, 1.0, 0.25))
    assert one.steps == (1, 1, 0.5) and one.rtf == pytest.approx(1.75 / 2.5)
    assert summarize([one]).chunk == 1


def test_delay_after_the_spoken_word():
    shown = stream((1, 1.5, "a x"), (2, 2.5, "a x c d"), (3, 3.25, "a x c d e"))
    spoken = [("a", 0.5), ("b", 0.9), ("c", 1.5), ("e", 2.75), ("f", 3.0)]
    one = measure(shown, list("abcef"), str.split, spoken)
    # x stands for b; d was not spoken; f was not heard.
    assert one.after_word == pytest.approx((1.5 - 0.5, 1.5 - 0.9, 2.5 - 1.5, 3.25 - 2.75))
    assert summarize([one]).after_word[0] == pytest.approx((0.6 + 1.0) / 2)
    assert measure(shown, list("abcef"), str.split).after_word == ()


def test_empty_text_has_no_delay():
    silent, spoken = stream((1, 1, ""), (2, 2.5, "")), stream((1, 1, "a"), (2, 2.5, "a"))
    one = measure(silent, ["a"], str.split)
    assert math.isnan(one.first_partial) and math.isnan(one.audio.laal) and one.audio.words == ()
    both = summarize([one, measure(spoken, ["a"], str.split)])
    assert (both.utterances, both.empty, both.laal) == (2, 1, 1.0)
    nothing = summarize([one])
    assert math.isnan(nothing.laal) and math.isnan(nothing.unstable_words)


def test_no_reference_word_leaves_laal_but_no_al():
    found = lag([1.0, 2.0], 4.0, 0)
    assert math.isnan(found.al) and found.laal == (1 + (2 - 2)) / 2


texts = st.lists(st.sampled_from("abc"), max_size=5).map(" ".join)


@given(st.lists(texts, min_size=1, max_size=6))
def test_emission_by_its_definition(shown):
    final = shown[-1].split()
    for word, index in enumerate(emissions([text.split() for text in shown])):
        stays = [
            all(text.split()[: word + 1] == final[: word + 1] for text in shown[i:])
            for i in range(len(shown))
        ]
        assert stays[index] and not any(stays[:index])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.data())
def test_append_only_streams_are_stable(words, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(words)), max_size=5)))
    shown = [" ".join(words[:cut]) for cut in cuts] + [" ".join(words)]
    events = stream(*((i + 1, i + 1, text) for i, text in enumerate(shown)))
    one = measure(events, words, str.split)
    assert (one.unstable_words, one.unstable_partials) == (0, 0)
    first = [next(i for i, cut in enumerate([*cuts, 99]) if cut > w) for w in range(len(words))]
    assert emissions([text.split() for text in shown]) == first


@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=20).map(sorted),
    st.floats(0.1, 20),
    st.integers(1, 30),
)
def test_lag_by_its_definition(delays, seconds, n_ref):
    """The sums of the papers, word by word."""
    found = lag(delays, seconds, n_ref)
    for value, n in ((found.al, n_ref), (found.laal, max(n_ref, len(delays)))):
        if delays[0] > seconds:
            expected = delays[0]
        else:
            total = tau = 0
            for i in range(1, len(delays) + 1):
                total += delays[i - 1] - (i - 1) * seconds / n
                tau = i
                if delays[i - 1] >= seconds:
                    break
            expected = total / tau
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)


GOOD = {"utterance": "u1", "audio_s": 1, "wall_s": 1.5, "text": "a", "final": False}
END = {"utterance": "u1", "audio_s": 2, "wall_s": 2.5, "text": "a b", "final": True}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, END | {"audio_s": 0.5}], ":2: audio_s of 'u1' goes back from 1 to 0.5;"),
        ([GOOD | {"wall_s": 3}, END], ":2: wall_s of 'u1' goes back from 3 to 2.5"),
        ([GOOD, END, GOOD], ":3: utterance 'u1' goes on after its final event"),
        ([GOOD, END, GOOD | {"utterance": "u2"}], ":3: this is the last event of 'u2' and not"),
        ([GOOD | {"wall_s": 0.9}], ":1: 1 s of audio were given by 0.9 s: faster than"),
        ([GOOD | {"utterance": ""}], ":1: 'utterance' is \"\" instead of a text"),
        ([GOOD | {"utterance": None}], ":1: 'utterance' is null instead of a text"),
        ([GOOD | {"text": 5}], ":1: 'text' is 5 instead of a text"),
        ([GOOD | {"final": 1}], ":1: 'final' is 1 instead of true or false"),
        ([GOOD | {"audio_s": "1"}], ":1: 'audio_s' is \"1\" instead of seconds"),
        ([GOOD | {"audio_s": True}], ":1: 'audio_s' is true instead of seconds"),
        ([GOOD | {"audio_s": -1}], ":1: 'audio_s' is -1: seconds count from 0"),
        ([GOOD | {"wall_s": math.inf}], ":1: 'wall_s' is Infinity: seconds count from 0"),
        ([GOOD | {"wall_s": math.nan}], ":1: 'wall_s' is NaN: seconds count from 0"),
        ([GOOD | {"wall_s": 10**400}], ":1: 'wall_s' is 1000"),
        ([{"utterance": "u1"}], ":1: 'text' is missing instead of a text"),
        ([END | {"audio_s": 0}], ":1: 'u1' ends after 0 s of audio"),
        ([[1]], ":1: not an object with utterance"),
    ],
)
def test_damaged_events(tmp_path, lines, message):
    with pytest.raises(EvalError) as error:
        read_events(write_events(tmp_path / "events", lines))
    assert message in str(error.value) and "\n" not in str(error.value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_the_readers_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "events"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + data)
    for reader in (read_events, read_segments):
        with pytest.raises(EvalError, match=r"events"):
            reader(path)


@pytest.mark.parametrize(
    "line", ["u1 r1 0", "u1 r1 0 1 2", "u1 r1 2 1", "u1 r1 a 1", "u1 r1 0 inf", "u1 r1 nan 2"]
)
def test_damaged_segments(tmp_path, line):
    path = tmp_path / "segments"
    path.write_text(f"u0 r1 0.5 1.5\n{line}\n")
    with pytest.raises(EvalError, match=r"segments:2: "):
        read_segments(path)


@pytest.mark.parametrize(
    "line", ["u1 1 0 a", "u1 1 0 x a", "u1 1 0.1 0.1 a", "u1 1 0 nan a", "u1 1 0 1e12 a"]
)
def test_damaged_ctm(tmp_path, line):
    path = tmp_path / "ctm"
    path.write_text(f";; made by hand\nu1 1 0.5 0.5 a 0.9\n{line}\n")
    with pytest.raises(EvalError, match=r"ctm:3: "):
        read_ctm(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_events(
        tmp_path / "events.jsonl",
        [
            GOOD | {"text": "Добры"},
            GOOD | {"utterance": "u2", "text": ""},
            END | {"text": "добры дзень"},
            END | {"utterance": "u2", "text": "не"},
        ],
    )
    (tmp_path / "text").write_text("u1 добры дзень\nu2 так\n", encoding="utf-8")
    (tmp_path / "offline").write_text("u1 добры дзень\nu2 так\n", encoding="utf-8")
    (tmp_path / "segments").write_text("u1 r 0 2\nu2 r 2 4\n")
    return tmp_path


def run(capsys, *arguments):
    code = main(["latency", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command(folder, capsys):
    options = ("events.jsonl", "--ref", "text", "--offline", "offline", "--out", "tables")
    code, out, err = run(capsys, *options)
    assert (code, err) == (0, "")
    assert "2 streams, 4.0 s of audio, 2 partials, RTF 0.500" in out
    assert "%WER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]" in out
    assert "stream - offline: %WER +33.33, 95 % CI [" in out
    header, row = (folder / "tables" / "latency.csv").read_text().splitlines()
    summary = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(summary["laal"]) == 1.5 and float(summary["first_partial_p50"]) == 2.0
    assert summary["after_word_p99"] == "" and "stream_laal" not in summary
    rows = (folder / "tables" / "latency_utt.csv").read_text().splitlines()
    assert rows[0].startswith("utterance,audio_seconds,partials,words,n_ref,first_partial")
    assert rows[1].startswith("u1,2.0,1,2,2,1.5,0.5,1.0,1.5,") and len(rows) == 3
    pairs = (folder / "tables" / "stream_pairs.csv").read_text().splitlines()
    assert pairs[0].startswith("stream,offline,delta,low,high,p_improvement")
    assert pairs[1].startswith("0.3333333333333333,0.0,0.3333333333333333,")
    code, out, _ = run(capsys, *options, "--json")
    found = json.loads(out)
    assert found == json.loads((folder / "tables" / "latency.json").read_text())
    assert found["summary"]["laal_ca"] == pytest.approx((1.5 + 2.5) / 2)


def test_command_with_word_times(folder, capsys):
    (folder / "ctm").write_text("u1 1 0 1 Добры,\nu1 1 1 0.75 дзень\nu2 1 1 0.5 не\n")
    options = ("events.jsonl", "--ref", "text", "--ctm", "ctm")
    assert "after the spoken word  0.750  " in run(capsys, *options)[1]  # of 0.5, 0.75 and 1
    (folder / "ctm").write_text("u1 1 0 1 Добры,\n")
    assert "ctm has no word of 1 streams ('u2')" in run(capsys, *options)[2]


def test_command_with_segments(folder, capsys):
    events = [
        GOOD | {"utterance": "r", "text": "добры дзень"},
        END | {"utterance": "r", "audio_s": 4, "wall_s": 4.5, "text": "добры дзень так"},
    ]
    write_events(folder / "long.jsonl", events)
    options = ("long.jsonl", "--ref", "text", "--segments", "segments")
    code, out, _ = run(capsys, *options, "--json")
    found = json.loads(out)
    assert code == 0 and found["wer"] == 0
    assert found["stream_laal"]["audio"] == pytest.approx(((1 + (1 - 1)) / 2 + 2) / 2)
    assert "StreamLAAL" in run(capsys, *options)[1]
    (folder / "segments").write_text("u1 r 0 2\nu2 other 2 4\n")
    assert "have different recordings ('other')" in run(capsys, *options)[2]
    (folder / "segments").write_text("u1 r 0 2\nu9 r 2 4\n")
    assert "segment 'u9' is not in text" in run(capsys, *options)[2]


def test_command_refuses(folder, capsys):
    (folder / "text").write_text("u1 добры дзень\nu3 так\n", encoding="utf-8")
    code, out, err = run(capsys, "events.jsonl", "--ref", "text")
    assert (code, out) == (2, "")
    assert "events.jsonl: 1 utterances are not in text ('u2')" in err
    (folder / "text").write_text("u1 добры дзень\nu2 так\nu3 так\n", encoding="utf-8")
    assert "1 ids have no hypothesis ('u3')" in run(capsys, "events.jsonl", "--ref", "text")[2]


def test_what_is_no_stream_is_said(folder, capsys):
    write_events(folder / "events.jsonl", [END, END | {"utterance": "u2", "text": ""}])
    _, out, _ = run(capsys, "events.jsonl", "--ref", "text")
    assert "No partials: this system was not streaming." in out
    assert "1 streams have an empty text and no delay" in out


def test_letters_for_scripts_without_spaces(folder, capsys):
    write_events(folder / "events.jsonl", [GOOD | {"text": "你"}, END | {"text": "你 好"}])
    (folder / "text").write_text("u1 你好\n", encoding="utf-8")
    _, out, _ = run(capsys, "events.jsonl", "--ref", "text", "--unit", "char", "--json")
    assert json.loads(out)["summary"]["laal"] == pytest.approx((1 + (2 - 1)) / 2)


def test_the_order_of_interleaved_utterances_changes_nothing(tmp_path):
    cases = FIXTURE["short"][:6]
    lines = [as_events(f"u{i}", case, case["source_length"]) for i, case in enumerate(cases)]
    shuffled, queues = [], [list(those) for those in lines]
    pick = random.Random(0)
    while any(queues):
        shuffled.append(pick.choice([queue for queue in queues if queue]).pop(0))
    plain = read_events(write_events(tmp_path / "a", [line for those in lines for line in those]))
    mixed = read_events(write_events(tmp_path / "b", shuffled))
    assert plain == mixed and len(plain) == 6
