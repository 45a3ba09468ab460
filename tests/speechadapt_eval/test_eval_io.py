"""Readers: what they accept, and the file and line of what they refuse."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError
from speechadapt_eval.io import (
    Row,
    Side,
    read_field,
    read_kaldi_text,
    read_side,
    read_table,
    read_texts,
    read_trn,
    read_utt2spk,
    read_utts,
)


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
    for read in (read_kaldi_text, read_utt2spk, read_utts, read_trn):
        try:
            read(path)
        except EvalError as error:
            assert str(path) in str(error)


LINES = st.lists(
    st.sampled_from([
        "u1 a b", "u1", " u1 a", "", "a b (s-u1)", "(s-u1)", "a (s u1)", "a ()", ") (", ";; x",
        "{ a / b } (s-u2)", '{"id": "u1"}', '{"id": "u2", "ref": null}', '{"id": 1}', "[1]", "NaN",
        '{"id": "u3", "ref": 1e999}', '"u1"', "u1\u2028x y", "\ufeff", "u1 \x00", "\r", "1" * 5000,
    ])
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from(["text", "a.trn", "a.jsonl"]), st.booleans())
def test_no_line_crashes_a_reader_without_being_named(tmp_path_factory, lines, name, ends):
    data = "\n".join(lines) + ("\n" if ends else "")
    path = write(tmp_path_factory.mktemp("io") / name, data)
    for read in (lambda path: read_side(path, "ref"), lambda path: read_table(path, "x")):
        try:
            read(path)
        except EvalError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


def test_trn(tmp_path):
    data = ";; comment\nдобры дзень (s1-u1)\r\n(s1-u2)\n\t (uh) yes  ( s2-u-3 ) \n"
    path = write(tmp_path / "a.trn", data)
    assert read_trn(path) == {"s1-u1": "добры дзень", "s1-u2": "", "s2-u-3": "(uh) yes"}
    side = read_side(path, "hyp")
    assert side.fields == {
        "s1-u1": {"speaker": "s1"}, "s1-u2": {"speaker": "s1"}, "s2-u-3": {"speaker": "s2"},
    }  # fmt: skip
    assert read_side(write(tmp_path / "b.trn", "a (s1-u1)\nb (u2)\n"), "ref").fields == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a (u1)\nb u2\n", "trn:2: no utterance id in round brackets"),
        ("a (u1) b\n", "trn:1: no utterance id"),
        ("a ( )\n", "trn:1: no utterance id"),
        ("a (s 1)\n", "trn:1: no utterance id"),
        ("a (u1)\n\n", "trn:2: empty line"),
        ("a (u1)\nb (u1)\n", "trn:2: utterance 'u1' occurs a second time"),
        ("{ a / b } c (u1)\n", "trn:1: alternatives in braces are not read"),
        (";; only\n", "trn holds comments only"),
    ],
)
def test_trn_refused(tmp_path, data, message):
    with pytest.raises(EvalError, match=message):
        read_trn(write(tmp_path / "trn", data))


def test_data_directory(tmp_path):
    write(tmp_path / "text", "s1-u1 a b\ns1-u2 c\n")
    assert read_side(tmp_path, "ref") == Side({"s1-u1": "a b", "s1-u2": "c"})
    write(tmp_path / "utt2spk", "s1-u1 s1\ns1-u2 s1\n")
    write(tmp_path / "utt2dur", "s1-u1 1.25\n")
    write(tmp_path / "utt2lang", "s1-u1 be\ns1-u2 ro\n")
    side = read_side(tmp_path, "ref")
    assert side.languages == {"s1-u1": "be", "s1-u2": "ro"}
    assert side.fields == {
        "s1-u1": {"speaker": "s1", "duration": 1.25}, "s1-u2": {"speaker": "s1"}
    }  # fmt: skip
    with pytest.raises(EvalError, match=r"cannot read .*lang/text"):
        (tmp_path / "lang").mkdir()
        read_side(tmp_path / "lang", "ref")


def test_fields_are_numbers_where_they_can_be(tmp_path):
    path = write(tmp_path / "utt2snr", "u1 5\nu2 -2.5\nu3 clean\nu4 nan\n")
    assert read_field(path, "snr") == {"u1": 5.0, "u2": -2.5, "u3": "clean", "u4": "nan"}
    with pytest.raises(EvalError, match="utt2snr:1: 1 fields instead of utterance id and snr"):
        read_field(write(tmp_path / "utt2snr", "u1\n"), "snr")


def test_ten_megabytes_in_a_line(tmp_path):
    text = "слова " * 950_000
    assert len(text.encode()) > 10_000_000
    path = write(tmp_path / "text", "u1 " + text + "\nu2 a\n")
    assert read_kaldi_text(path)["u1"] == text.strip()
    row = json.dumps({"id": "u1", "hyp": text}, ensure_ascii=False)
    assert read_texts(write(tmp_path / "a.jsonl", row), "hyp") == {"u1": text}
    assert read_trn(write(tmp_path / "a.trn", text + "(u1)\n")) == {"u1": text.strip()}
