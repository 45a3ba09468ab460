"""Text, JSON, SubRip, WebVTT and Kaldi's text file."""

import itertools
import json
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechadapt.decoding.formats import cues, to_dict, to_json, to_kaldi, to_srt, to_text, to_vtt
from speechadapt.decoding.outputs import open_output
from speechadapt.decoding.search import Hypothesis
from speechadapt.decoding.timestamps import Word
from speechadapt.decoding.tokens import Segment
from speechadapt.decoding.transcriber import Transcript
from speechadapt.errors import ConfigError, DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def transcript(text="Добры дзень", name="u1", segments=(), words=()):
    found = Hypothesis(text, (1, 2), "be", None, -0.25, 0.01, 0.9, 0.0, segments, words)
    return Transcript(name, 3.5, found)


def test_srt():
    made = to_srt(
        transcript(segments=(Segment(0.5, 1.25, "раз"), Segment(3661.001, 3662.9, "два --> тры")))
    )
    assert made == (
        "1\n00:00:00,500 --> 00:00:01,250\nраз\n\n2\n01:01:01,001 --> 01:01:02,900\nдва -> тры\n"
    )
    assert to_srt(transcript()) == ""


def test_vtt():
    made = to_vtt(transcript(segments=(Segment(0.5, 1.25, "a <b> & c --> d"),)))
    assert made == ("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\na &lt;b&gt; &amp; c --&gt; d\n")
    assert to_vtt(transcript()) == "WEBVTT\n"


@given(st.lists(st.tuples(st.floats(0, 10_000), st.floats(0, 60), TEXT), max_size=5))
def test_subtitles_can_always_be_read_back(items):
    segments = tuple(Segment(start, start + length, text) for start, length, text in items)
    shown = cues(transcript(segments=segments))
    srt = to_srt(transcript(segments=segments))
    blocks = srt.strip("\n").split("\n\n") if srt else []
    assert len(blocks) == len(shown)
    clock = r"(\d\d+):([0-5]\d):([0-5]\d)[,.](\d{3})"
    for block, cue in zip(blocks, shown, strict=True):
        lines = block.split("\n")
        assert len(lines) == 3
        times = re.fullmatch(f"{clock} --> {clock}", lines[1])
        assert times
        h, m, s, ms, *end = map(int, times.groups())
        assert abs(3600 * h + 60 * m + s + ms / 1000 - cue.start) <= 0.0006
        assert tuple(end) > (h, m, s, ms)
    vtt = to_vtt(transcript(segments=segments))
    assert vtt.count(" --> ") == len(shown)
    assert "<" not in vtt


def test_words_are_grouped_into_readable_cues():
    words = [Word(0.5 * i, 0.5 * i + 0.4, f" слова{i}") for i in range(40)]
    words[9] = Word(4.5, 4.9, " канец.")
    words = [*words[:20], *(Word(w.start + 5, w.end + 5, w.text) for w in words[20:])]
    made = cues(transcript(words=tuple(words)))
    assert made[0].text.endswith("слова8") or made[0].text.endswith("канец.")
    assert all(len(cue.text) <= 84 and cue.end - cue.start <= 7 for cue in made)
    assert any(cue.text.endswith("канец.") for cue in made)
    assert " ".join(cue.text for cue in made) == "".join(w.text for w in words).strip()
    assert all(a.end <= b.start for a, b in itertools.pairwise(made))


def test_json_round_trip():
    item = transcript("«Жук»", words=(Word(0, 1, " «Жук»"),), segments=(Segment(0, 1, "«Жук»"),))
    assert json.loads(to_json(item)) == to_dict(item)
    assert "«Жук»" in to_json(item)
    assert to_json(item, indent=None).count("\n") == 1
    assert json.loads(to_json(item))["words"] == [{"start": 0, "end": 1, "text": " «Жук»"}]


def test_kaldi_text_is_sorted_as_kaldi_wants(tmp_path):
    names = ["b", "a-1", "a", "B", "ж", "a1", "a_1", "\U0001f41e"]
    made = to_kaldi([transcript("  раз \n два ", name) for name in names])
    assert made.splitlines()[0] == "B раз два"
    path = tmp_path / "text"
    path.write_text(made, encoding="utf-8")
    command = ["sort", "-c", "-k1,1", str(path)]
    subprocess.run(command, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=True)
    assert to_kaldi([transcript("", "u1")]) == "u1\n"


@pytest.mark.parametrize("name", ["", "a b", "a\t"])
def test_kaldi_ids_without_white_space(name):
    with pytest.raises(DataError, match="white space"):
        to_kaldi([transcript(name=name)])
    with pytest.raises(DataError, match="twice"):
        to_kaldi([transcript(), transcript()])


@given(TEXT)
def test_text_is_one_line(text):
    assert len(to_text(transcript(text)).splitlines()) <= 1
    assert to_text(transcript(text)).endswith("\n")


def test_folder_output_writes_each_file_when_it_is_finished(tmp_path):
    out = tmp_path / "texts"
    output = open_output("json", out, ["u1", "a/b"])
    output.add(transcript())
    assert json.loads((out / "u1.json").read_text("utf-8"))["text"] == "Добры дзень"
    output.add(transcript(name="a/b"))
    output.close()
    assert sorted(p.name for p in out.iterdir()) == ["a-b.json", "u1.json"]


def test_file_output(tmp_path):
    for kind, expected in {
        "txt": "b\tдва\na\tраз\n",
        "kaldi": "a раз\nb два\n",
    }.items():
        path = tmp_path / f"out.{kind}"
        output = open_output(kind, path, ["b", "a"])
        output.add(transcript("два", "b"))
        output.add(transcript("раз", "a"))
        assert not path.exists()
        output.close()
        assert path.read_text("utf-8") == expected
    output = open_output("txt", tmp_path / "one.txt", ["a"])
    output.add(transcript("раз", "a"))
    output.close()
    assert (tmp_path / "one.txt").read_text("utf-8") == "раз\n"


def test_standard_output(capsys):
    output = open_output("json", None, ["a", "b"])
    output.add(transcript("раз", "a"))
    assert json.loads(capsys.readouterr().out)["id"] == "a"
    output.close()
    assert capsys.readouterr().out == ""
    kaldi = open_output("kaldi", None, ["b", "a"])
    kaldi.add(transcript("два", "b"))
    kaldi.add(transcript("раз", "a"))
    assert capsys.readouterr().out == ""
    kaldi.close()
    assert capsys.readouterr().out == "a раз\nb два\n"


def test_kaldi_into_an_existing_folder(tmp_path):
    output = open_output("kaldi", tmp_path, ["a"])
    output.add(transcript("раз", "a"))
    output.close()
    assert (tmp_path / "text").read_text("utf-8") == "a раз\n"


def test_outputs_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="share one srt file"):
        open_output("srt", tmp_path / "x.srt", ["a", "b"])
    with pytest.raises(ConfigError, match="share one vtt file"):
        open_output("vtt", None, ["a", "b"])
    with pytest.raises(ConfigError, match="would be written to a-b"):
        open_output("txt", tmp_path, ["a/b", "a-b"])
    with pytest.raises(ConfigError, match="'doc' is unknown"):
        open_output("doc", None, ["a"])
