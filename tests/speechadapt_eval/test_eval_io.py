"""Readers: what they accept, and the file and line of what they refuse."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError
from speechadapt_eval.io import Row, read_kaldi_text, read_texts, read_utt2spk, read_utts


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_kaldi_text(tmp_path):
    path = write(
        tmp_path / "text", "\ufeffu1 добры дзень\r\nu2\nu3\tтры  \u2028словы \nu4 \u00a0no end"
    )
    assert read_kaldi_text(path) == {
        "u1": "добры дзень",
        "u2": "",
        "u3": "тры  \u2028словы",
        "u4": "\u00a0no end",
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"u1 a\n\nu2 b\n", "text:2: empty line"),
        (b"u1 a\n u2 b\n", "text:2: line begins with white space"),
        (b"u1 a\nu1 b\n", "text:2: utterance 'u1' occurs a second time"),
        (b"u1 a\nu2 caf\xe9\n", "text:2: byte 7 is not UTF-8"),
        ("u1 a\n".encode("utf-16"), "text:1: byte 1 is not UTF-8"),
    ],
)
def test_kaldi_text_refused(tmp_path, data, message):
    with pytest.raises(EvalError, match=message):
        read_kaldi_text(write(tmp_path / "text", data))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(EvalError, match=r"cannot read .*nothing: No such file"):
        read_kaldi_text(tmp_path / "nothing")
    with pytest.raises(EvalError, match="cannot read"):
        read_utts(tmp_path)


def test_utt2spk(tmp_path):
    assert read_utt2spk(write(tmp_path / "utt2spk", "u1 s1\nu2\ts1\n")) == {"u1": "s1", "u2": "s1"}
    with pytest.raises(EvalError, match="utt2spk:2: 1 fields"):
        read_utt2spk(write(tmp_path / "utt2spk", "u1 s1\nu2\n"))


def test_utts(tmp_path):
    lines = ['{"id": "u1", "ref": "a", "hyp": "b", "lang": "be", "duration": 1.5}', '{"id": "u2"}']
    path = write(tmp_path / "utts.jsonl", "\n".join(lines))
    assert read_utts(path) == {
        "u1": Row("u1", "a", "b", "be", {"duration": 1.5}),
        "u2": Row("u2"),
    }
    with pytest.raises(EvalError, match="utterance 'u2' has no 'hyp'"):
        read_texts(path, "hyp")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ("[" * 100_000, ":2: not JSON"),
        ("[]", ":2: not an object"),
        ('{"ref": "a"}', ":2: not an object with a text 'id'"),
        ('{"id": ""}', ":2: not an object with a text 'id'"),
        ('{"id": 5}', ":2: not an object with a text 'id'"),
        ('{"id": "u2", "hyp": 5}', ":2: 'hyp' of 'u2' is not a text"),
        ('{"id": "u1"}', ":2: utterance 'u1' occurs a second time"),
        ('{"id": "u2", "hyp": "\\ud83d"}', ":2: half a surrogate pair"),
    ],
)
def test_utts_refused(tmp_path, line, message):
    path = write(tmp_path / "utts.jsonl", '{"id": "u1"}\n' + line + "\n")
    with pytest.raises(EvalError, match=message):
        read_utts(path)


WORD = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs"]), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(WORD, st.lists(WORD).map(" ".join), min_size=1))
def test_round_trips(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("io")
    kaldi = write(folder / "text", "".join(f"{k} {v}".strip(" ") + "\n" for k, v in texts.items()))
    first = next(iter(texts))
    if not first.startswith("\ufeff"):
        assert read_kaldi_text(kaldi) == texts
    rows = "".join(json.dumps({"id": k, "hyp": v}) + "\n" for k, v in texts.items())
    assert read_texts(write(folder / "utts.jsonl", rows), "hyp") == texts


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_crash_a_reader(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("io") / "any", data)
    for read in (read_kaldi_text, read_utt2spk, read_utts):
        try:
            read(path)
        except EvalError as error:
            assert str(path) in str(error)
