"""JSONL manifests."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt.data import Utterance, read_manifest, write_manifest
from speechadapt.errors import DataError

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
starts = st.floats(0, 1e6)
utterances = st.builds(
    Utterance,
    id=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=6),
    audio=st.just("/data/x.flac") | st.just("sox x.wav -t wav - |"),
    start=st.none() | starts,
    end=st.none() | st.floats(2e6, 1e8),
    text=st.none() | texts,
    language=st.none() | st.just("be"),
    speaker=st.none() | texts,
    duration=st.none() | st.floats(0.001, 1e6),
)


@given(st.lists(utterances, min_size=1, max_size=5, unique_by=lambda u: u.id))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, chosen):
    path = tmp_path_factory.mktemp("set") / "m.jsonl"
    write_manifest(path, chosen)
    assert read_manifest(path) == chosen


def test_relative_paths_are_relative_to_the_manifest(tmp_path, monkeypatch):
    (tmp_path / "m.jsonl").write_text('{"id": "a", "audio": "clips/x.wav"}\n')
    assert read_manifest(tmp_path / "m.jsonl")[0].audio == str(tmp_path / "clips/x.wav")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    write_manifest("elsewhere/m.jsonl", [Utterance("a", "x.wav")])
    assert read_manifest("elsewhere/m.jsonl")[0].audio == str(tmp_path / "x.wav")


BAD = {
    "empty": (b"", "has no utterances"),
    "blank": (b"\n\n", "has no utterances"),
    "no JSON": (b'{"id": "a", "audio": "x"}\nid: b\n', "m.jsonl:2: no JSON"),
    "cut": (b'{"id": "a", "aud', "m.jsonl:1: no JSON"),
    "a list": (b"[1]\n", "m.jsonl:1: expected an object"),
    "nested without end": (b"[" * 100_000, "m.jsonl:1: no JSON"),
    "no audio": (b'{"id": "a"}\n', '"id" and "audio"'),
    "audio null": (b'{"id": "a", "audio": null}\n', '"id" and "audio"'),
    "id a number": (b'{"id": 7, "audio": "x"}\n', '"id" and "audio"'),
    "id with a blank": (b'{"id": "a b", "audio": "x"}\n', "'a b' has white space"),
    "unknown field": (b'{"id": "a", "audio": "x", "txt": "y"}\n', "unknown txt; known are id, au"),
    "text a number": (b'{"id": "a", "audio": "x", "text": 5}\n', "text is 5, expected a string"),
    "start a string": (b'{"id": "a", "audio": "x", "start": "1"}\n', "start is '1', expected sec"),
    "start true": (b'{"id": "a", "audio": "x", "start": true}\n', "start is True"),
    "start below 0": (b'{"id": "a", "audio": "x", "start": -1}\n', "start is -1"),
    "NaN": (b'{"id": "a", "audio": "x", "end": NaN}\n', "end is nan"),
    "infinite": (b'{"id": "a", "audio": "x", "duration": Infinity}\n', "duration is inf"),
    "no time": (b'{"id": "a", "audio": "x", "duration": 0}\n', "lasts 0 s"),
    "backwards": (b'{"id": "a", "audio": "x", "start": 2, "end": 1}\n', "ends before it starts"),
    "latin-1": ('{"id": "a", "audio": "é"}\n'.encode("latin-1"), "m.jsonl:1: not UTF-8 (byte 0xe9"),
    "twice": (b'{"id": "a", "audio": "x"}\n\n{"id": "a", "audio": "y"}\n', "m.jsonl:3: a is there"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_gives_one_sentence(tmp_path, case):
    content, said = BAD[case]
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(DataError, match=r"nix\.jsonl: cannot be read"):
        read_manifest(tmp_path / "nix.jsonl")


@pytest.mark.parametrize(
    "chosen", [[], [Utterance("a", "x")] * 2, [Utterance("a b", "x")], [Utterance("a", "")]]
)
def test_nothing_is_written_that_could_not_be_read(tmp_path, chosen):
    with pytest.raises(DataError):
        write_manifest(tmp_path / "m.jsonl", chosen)
    assert not list(tmp_path.iterdir())


def test_unknown_fields_are_left_out(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", "/x.wav", text="Жаба")])
    line = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    assert json.loads(line) == {"id": "a", "audio": "/x.wav", "text": "Жаба"}
    assert "Жаба" in line
