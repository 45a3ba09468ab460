"""The command as a user runs it."""

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval.cli.main import main


def run(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", "speechadapt_eval.cli.main", *args],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    files = {
        "ref": "u1 Добры дзень!\nu2 раз два тры\nu3 так\n",
        "a": "u3 не\nu1 добры день\nu2 раз два\n",
        "b": "u1 добры дзень\nu2 раз два тры чатыры\nu3 так\n",
        "part": "u1 добры дзень\nu9 хто\n",
        "ref2": "v1 яшчэ адзін\n",
        "hyp2": "v1 яшчэ адзін\n",
        "utt2spk": "u1 s1\nu2 s1\nu3 s2\n",
        "bad": "u1 a\nu1 b\n",
        "langs": "u1 be\nu2 be\nu3 zh\n",
        "noises": "u1 babble\nu2 babble\nu3 clean\n",
        "beeps": "b1 ...\nb2\nb3 адзін два тры\n",
        "made": "b1 дзякуй вам\nb2\nb3 адзін адзін адзін адзін два тры\n",
        "quiet": "b1\nb2\nb3\n",
        "words": "b1 long\n",
        "seconds": "b1 10\nb2 20\nb3 2\n",
        "field.jsonl": '{"id": "u1", "ref": "a b", "hyp": "a c", "speaker": 7, "snr": 5}\n'
        '{"id": "u2", "ref": "a", "hyp": "a", "speaker": 8, "snr": 12.5, "lang": "en"}\n',
        "utts.jsonl": '{"id": "u1", "ref": "a b", "hyp": "a c"}\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_reader_that_stops_early(folder):
    command = f"{sys.executable} -m speechadapt_eval.cli.main wer ref a | true"
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


def test_wer(folder):
    done = run(folder, "wer", "ref", "a")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "%WER 50.00 [ 3 / 6, 0 ins, 1 del, 2 sub ]",
        "%SER 100.00 [ 3 / 3 ]",
        "Scored 3 sentences, 0 not present in hyp.",
    ]
    assert lines[3].startswith("95 % CI [ 0.00, 118.28 ] t over 3 utterances (does not")


def test_wer_with_speakers_and_json(folder):
    done = run(folder, "wer", "ref", "a", "--utt2spk", "utt2spk", "--json", "--unit", "char")
    found = json.loads(done.stdout)
    assert found["interval"]["method"] == "t over 2 speakers"
    assert found["unit"] == "char" and found["errors"] == found["n_ref"] - found["hits"]


def test_wer_of_one_utterance_has_no_interval(folder):
    done = run(folder, "wer", "utts.jsonl", "utts.jsonl", "--json")
    found = json.loads(done.stdout)
    assert found["rate"] == 0.5 and found["interval"]["low"] is None


def test_wer_pools_sets_and_modes(folder):
    pooled = run(folder, "wer", "ref", "a", "--and", "ref2", "hyp2").stdout
    assert pooled.startswith("%WER 37.50 [ 3 / 8,")
    part = run(folder, "wer", "ref", "part", "--mode", "present").stdout.splitlines()
    assert part[0] == "%WER 0.00 [ 0 / 2, 0 ins, 0 del, 0 sub ] [PARTIAL]"
    assert part[2] == "Scored 1 sentences, 2 not present in hyp."
    assert part[3] == "1 hypotheses have no reference and were left out."


def test_wer_writes_tables(folder):
    args = ["--utt2spk", "utt2spk", "--utt2lang", "langs", "--field", "noise", "noises"]
    out = ["--by", "noise", "--by", "language", "--confusions", "1", "--out", "out"]
    done = run(folder, "wer", "ref", "a", *args, *out, "--trn-out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    plain = run(folder, "wer", "ref", "a", "--utt2spk", "utt2spk").stdout
    assert done.stdout.startswith(plain)
    table = [line.split() for line in done.stdout.splitlines()]
    assert ["babble", "2", "5", "2", "%WER", "40.00"] in [row[:6] for row in table]
    assert ["zh", "1", "1", "1", "%WER", "100.00"] in [row[:6] for row in table]
    assert ["deletion", "тры", "1"] in table
    found = {path.name for path in (folder / "out").iterdir()}
    assert found == {
        "wer.csv", "wer_utt.jsonl", "wer_spk.csv", "confusions.csv", "slices.csv", "per_utt",
        "per_spk", "ref.trn", "hyp.trn",
    }  # fmt: skip
    rows = {name: read_csv(folder / "out" / f"{name}.csv") for name in ("wer", "wer_spk", "slices")}
    (row,) = rows["wer"]
    assert (row["system"], row["set"], row["lang"], row["unit"]) == ("a", "ref", "", "word")
    assert (row["errors"], row["n_ref"], row["rate"]) == ("3", "6", "0.5")
    assert (row["utterances"], row["speakers"], row["normalizer"]) == ("3", "2", "unicode")
    assert [(r["speaker"], r["errors"], r["n_ref"]) for r in rows["wer_spk"]] == [
        ("s1", "2", "5"), ("s2", "1", "1")
    ]  # fmt: skip
    assert [(r["field"], r["value"], r["errors"]) for r in rows["slices"]] == [
        ("noise", "babble", "2"), ("noise", "clean", "1"),
        ("language", "be", "2"), ("language", "zh", "1"),
    ]  # fmt: skip
    again = run(folder, "wer", "out/ref.trn", "out/hyp.trn", "--json")
    found = json.loads(again.stdout)
    assert found["errors"] == 3 and found["interval"]["method"] == "t over 2 speakers"


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_wer_takes_fields_of_jsonl(folder):
    args = ["field.jsonl", "field.jsonl", "--by", "snr:10", "--by", "speaker", "--json"]
    found = json.loads(run(folder, "wer", *args, "--confusions", "5").stdout)
    assert found["interval"]["n_clusters"] == 2
    values = [(s["field"], s["value"], s["errors"], s["n_ref"]) for s in found["slices"]]
    assert values == [
        ("snr", "< 10", 1, 2), ("snr", ">= 10", 0, 1),
        ("speaker", "7", 1, 2), ("speaker", "8", 0, 1),
    ]  # fmt: skip
    assert found["confusions"] == [{"kind": "substitution", "ref": "b", "hyp": "c", "count": 1}]


def test_wer_takes_the_unit_of_the_language(folder):
    done = run(folder, "wer", "ref", "a", "--unit", "auto", "--utt2lang", "langs")
    assert done.stdout.startswith("%MER 62.50 [ 5 / 8,")
    args = ["--unit", "auto", "--utt2lang", "langs", "--by", "language", "--json"]
    found = json.loads(run(folder, "wer", "ref", "a", *args).stdout)
    assert found["unit"] == "auto"
    assert [(s["value"], s["unit"]) for s in found["slices"]] == [("be", "word"), ("zh", "char")]
    split = run(folder, "wer", "ref", "a", "--split", "kaldi", "--json")
    assert json.loads(split.stdout)["split"] == "kaldi"


def test_hallucination(folder):
    args = ["beeps", "made", "quiet", "--field", "duration", "seconds", "--out", "out"]
    done = run(folder, "hallucination", *args)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[2] == ["made", "50.00", "4.00", "33.33", "100.00", "0.00", "0.00"]
    assert rows[3] == ["quiet", "0.00", "0.00", "0.00", "0.00", "0.00", "100.00"]
    assert done.stdout.endswith("2 non-speech clips, 1 utterances with speech.\n")
    made, quiet = read_csv(folder / "out" / "hallucination.csv")
    assert made["system"] == "made" and made["nonspeech_tokens"] == "2"
    found = json.loads(run(folder, "hallucination", "beeps", "made", "--json").stdout)
    assert found["made"]["tokens_per_minute"] is None
    assert found["made"]["output_share"] == float(made["output_share"]) == 0.5
    assert quiet["empty_share"] == "1.0"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["wer", "ref", "nothing"], "cannot read nothing: No such file or directory"),
        (["wer", "ref", "part"], "2 ids have no hypothesis ('u2', 'u3'); 1 ids have no reference"),
        (["wer", "ref", "bad"], "bad:2: utterance 'u1' occurs a second time"),
        (["wer", "ref", "a", "--and", "ref", "a"], "ref: 3 ids occur in another set as well"),
        (["wer", "ref2", "hyp2", "--utt2spk", "utt2spk"], "have no speaker ('v1')"),
        (["wer", "ref", "a", "--samples", "0"], "0 bootstrap samples"),
        (["wer", "ref", "a", "--by", "noise"], "no scored utterance has a field 'noise'"),
        (["wer", "ref", "a", "--by", "snr:x"], "edges 'x' of 'snr' are no ascending numbers"),
        (["wer", "ref", "a", "--unit", "auto"], "unit 'auto' needs the language"),
        (["wer", "ref", "a", "--out", "bad"], "cannot write bad/wer.csv"),
        (["wer", "ref", "a", "--field", "duration", "ref"], "ref:1: 3 fields instead of utterance"),
        (["hallucination", "ref", "a", "a"], "a is given twice"),
        (["hallucination", "beeps", "made", "--field", "duration", "words"], "not seconds"),
    ],
)
def test_mistakes_are_one_line(folder, args, message):
    done = run(folder, *args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("speechadapt-eval: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


BAD = ["", " u", "u1", "((", "(u)", "[1]", "{ a / b } (u9)", '{"id": "u9"}']
LINES = {
    "text": [
        "u1 a b", "u2 Ł'été 5", "u3", "u1 a a a a", "u4 " + "9" * 5000, "u5 家 ไป א́ב",
        "u6 \u2028\x00\ufeff", "u7 ({/ ;; @",
    ],
    "a.trn": ["a b (s-u1)", "(s-u2)", "(uh) 5 dollars and a half (s-u3)", ";; a", "家 (t)"],
    "a.jsonl": [
        '{"id": "u1", "ref": "a", "hyp": "b", "lang": "zh", "duration": 1, "speaker": 0}',
        '{"id": "u2", "ref": "", "hyp": "ıI", "lang": "tr", "duration": null, "speaker": [1]}',
        '{"id": "u3", "ref": "a", "hyp": "", "lang": "", "duration": "x", "nonspeech": true}',
        '{"id": "u4", "ref": "(a) ;; @", "hyp": "a", "duration": -1e400}',
    ],
}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(LINES)), st.data())
def test_no_file_crashes_a_command(tmp_path_factory, name, data):
    lines = st.lists(st.sampled_from(LINES[name]), min_size=1, unique=True)
    files = (lines | lines | st.lists(st.sampled_from(LINES[name] + BAD))).map("\n".join)
    ref = data.draw(files)
    hyp = data.draw(st.just(ref) | st.just(ref) | files)
    folder = tmp_path_factory.mktemp("fuzz")
    paths = []
    for side, text in (("ref", ref), ("hyp", hyp)):
        (folder / side).mkdir()
        paths.append(folder / side / name)
        paths[-1].write_text(text, encoding="utf-8")
    args = ["--mode", data.draw(st.sampled_from(["strict", "present", "all"]))]
    args += ["--unit", data.draw(st.sampled_from(["word", "char", "mixed", "auto"]))]
    args += ["--normalize", data.draw(st.sampled_from(["unicode", "none", "whisper-english"]))]
    args += ["--split", data.draw(st.sampled_from(["jiwer", "align-text"]))]
    if data.draw(st.booleans()):
        command = ["hallucination", *args]
    else:
        command = ["wer", *args, "--samples", "10", "--out", str(folder), "--confusions", "2"]
        command += data.draw(st.sampled_from([[], ["--by", "duration"], ["--by", "speaker"]]))
        command += data.draw(st.sampled_from([[], ["--trn-out", str(folder)]]))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = main([*command, *map(str, paths)])
    assert code in (0, 2) and errors.getvalue().count("\n") == code // 2


def test_help_has_examples(folder):
    for command in ("wer", "compare", "hallucination"):
        assert f"  speechadapt-eval {command} " in run(folder, command, "--help").stdout


def test_stands_alone(folder):
    code = (
        "import sys, speechadapt_eval.cli.main, speechadapt_eval.report.page\n"
        "print([n for n in ('torch', 'transformers', 'speechadapt') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
