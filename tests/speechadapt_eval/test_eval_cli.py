"""The command as a user runs it."""

import json
import subprocess
import sys

import pytest


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["wer", "ref", "nothing"], "cannot read nothing: No such file or directory"),
        (["wer", "ref", "part"], "2 ids have no hypothesis ('u2', 'u3'); 1 ids have no reference"),
        (["wer", "ref", "bad"], "bad:2: utterance 'u1' occurs a second time"),
        (["wer", "ref", "a", "--and", "ref", "a"], "ref: 3 ids occur in another set as well"),
        (["wer", "ref2", "hyp2", "--utt2spk", "utt2spk"], "have no speaker ('v1')"),
        (["wer", "ref", "a", "--samples", "0"], "0 bootstrap samples"),
    ],
)
def test_mistakes_are_one_line(folder, args, message):
    done = run(folder, *args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("speechadapt-eval: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_examples(folder):
    for command in ("wer", "compare"):
        assert f"  speechadapt-eval {command} " in run(folder, command, "--help").stdout


def test_stands_alone(folder):
    code = (
        "import sys, speechadapt_eval.cli.main, speechadapt_eval.report.page\n"
        "print([n for n in ('torch', 'transformers', 'speechadapt') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
