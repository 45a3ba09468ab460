"""Kaldi data directories: round trip, Kaldi's own rules, and one sentence for each defect."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldi_rules import problems

from speechadapt.audio import write_flac
from speechadapt.data import (
    Utterance,
    load_utterances,
    read_data_dir,
    write_data_dir,
    write_manifest,
)
from speechadapt.errors import AudioError, DataError

LETTERS = string.ascii_letters + string.digits + "_.-ЖëßΩ"
words = st.text(LETTERS, min_size=1, max_size=6)
transcripts = st.lists(
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8), max_size=5
).map(" ".join)
seconds = st.floats(0.001, 1e5, allow_nan=False)


@st.composite
def data_sets(draw):
    """Utterances that a data directory can hold, in Kaldi's order."""
    speakers = draw(st.sampled_from([None, ["a0-", "b1-", "ж2-"]]))
    stretches = draw(st.booleans())
    found = {}
    for _ in range(draw(st.integers(1, 8))):
        speaker = None if speakers is None else draw(st.sampled_from(speakers))
        name = (speaker or "") + draw(words)
        start = draw(st.floats(0, 1e4)) if stretches else None
        found[name] = Utterance(
            id=name,
            audio=f"/data/{draw(words)}.flac",
            start=start,
            end=None if start is None else start + draw(seconds) + 0.001,
            text=draw(transcripts),
            language=draw(st.sampled_from(["be", "ro"])),
            speaker=None if speaker is None else speaker.rstrip("-"),
            duration=draw(seconds),
        )
    return sorted(found.values(), key=lambda u: u.id.encode())


@given(data_sets(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again_and_kaldi_accepts_it(tmp_path_factory, utterances, rng):
    folder = tmp_path_factory.mktemp("set") / "data"
    shuffled = list(utterances)
    rng.shuffle(shuffled)
    try:
        write_data_dir(folder, shuffled, {"LICENCE": "free\n"})
    except DataError as error:  # texts such as "#0", which Kaldi refuses
        assert "<s> </s> #0" in str(error)
        return
    assert read_data_dir(folder) == utterances
    assert problems(folder) == []
    assert (folder / "LICENCE").read_text() == "free\n"


def test_unknown_fields_make_no_files(tmp_path):
    write_data_dir(tmp_path / "set", [Utterance("a", "/x.wav")])
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["spk2utt", "utt2spk", "wav.scp"]
    assert read_data_dir(tmp_path / "set") == [Utterance("a", "/x.wav")]


def test_an_empty_transcript_is_no_missing_one(tmp_path):
    write_data_dir(tmp_path / "set", [Utterance("a", "/x.wav", text="")])
    assert read_data_dir(tmp_path / "set", require_text=True)[0].text == ""
    assert problems(tmp_path / "set") == []


def test_white_space_of_any_kind_becomes_a_blank(tmp_path):
    write_data_dir(tmp_path / "set", [Utterance("a", "/x.wav", text=" l'été\u00a0 est\nlà\u2028!")])
    assert read_data_dir(tmp_path / "set")[0].text == "l'été est là !"


def test_paths_become_absolute_and_commands_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data_dir("set", [Utterance("a", "x.wav"), Utterance("b", "cat x.wav |")])
    assert [u.audio for u in read_data_dir("set")] == [str(tmp_path / "x.wav"), "cat x.wav |"]


def test_a_stretch_without_an_end_ends_with_its_recording(tmp_path):
    write_flac(tmp_path / "r.flac", np.zeros(24_000, np.float32))
    audio = str(tmp_path / "r.flac")
    utterances = [Utterance("a", audio, start=0.5), Utterance("b", audio, end=0.25)]
    write_data_dir(tmp_path / "set", [*utterances, Utterance("c", audio)])
    read = read_data_dir(tmp_path / "set")
    assert [(u.start, u.end) for u in read] == [(0.5, 1.5), (0.0, 0.25), (0.0, 1.5)]
    assert problems(tmp_path / "set") == []
    assert len((tmp_path / "set/wav.scp").read_text().splitlines()) == 1


def test_reading_takes_minus_one_tabs_and_windows_line_ends(tmp_path):
    (tmp_path / "wav.scp").write_bytes(b"r\t/x.wav\r\n")
    (tmp_path / "segments").write_bytes(b"u1 r 0.5 -1\nu2 r 1 2.25\n")
    first, second = read_data_dir(tmp_path)
    assert (first.audio, first.start, first.end) == ("/x.wav", 0.5, None)
    assert (second.audio, second.start, second.end) == ("/x.wav", 1.0, 2.25)


REFUSED = {
    "no utterance": ([], "no utterances"),
    "an id twice": ([Utterance("a", "/x"), Utterance("a", "/y")], "a: twice"),
    "an id with a blank": ([Utterance("a b", "/x")], "'a b'"),
    "an empty id": ([Utterance("", "/x")], "one word"),
    "a speaker with a blank": ([Utterance("a", "/x", speaker="a b")], "'a b'"),
    "a language with a line end": ([Utterance("a", "/x", language="be\n")], "language"),
    "a path with a line end": ([Utterance("a", "/x\n/y")], "rename"),
    "an empty path": ([Utterance("a", "")], "utterance a"),
    "a home path": ([Utterance("a", "~/x.wav")], "~/x.wav"),
    "a bell in a text": ([Utterance("a", "/x", text="ding \a")], "control"),
    "a language model's symbol": ([Utterance("a", "/x", text="well, <s>")], "<s>"),
    "a text here, none there": (
        [Utterance("a", "/x", text="yes"), Utterance("b", "/y")],
        "1 of 2 utterances have no text, first b",
    ),
    "a language here, none there": (
        [Utterance("a", "/x"), Utterance("b", "/y", language="be")],
        "no language, first a",
    ),
    "no time at all": ([Utterance("a", "/x", duration=0.0)], "lasts 0.0 s"),
    "an endless one": ([Utterance("a", "/x", duration=float("inf"))], "lasts inf s"),
    "an end before the start": ([Utterance("a", "/x", start=2.0, end=1.0)], "2.0 … 1.0 s"),
    "speakers in another order": (
        [Utterance("a1", "/x", speaker="z"), Utterance("b1", "/y", speaker="b")],
        "its speaker b sorts before z",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_sets_leave_the_old_directory(tmp_path, case):
    utterances, said = REFUSED[case]
    write_data_dir(tmp_path / "set", [Utterance("old", "/old.wav")])
    with pytest.raises(DataError) as caught:
        write_data_dir(tmp_path / "set", utterances)
    assert said in str(caught.value)
    assert [u.id for u in read_data_dir(tmp_path / "set")] == ["old"]
    assert [left.name for left in tmp_path.iterdir()] == ["set"]


def test_a_stretch_of_a_missing_recording(tmp_path):
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        write_data_dir(tmp_path / "set", [Utterance("a", str(tmp_path / "nowhere.wav"), start=1.0)])


@pytest.fixture
def good(tmp_path):
    """A good directory of two utterances that a test may damage."""
    audio = tmp_path / "x.flac"
    write_flac(audio, np.zeros(16_000, np.float32))
    folder = tmp_path / "set"
    write_data_dir(
        folder,
        [
            Utterance(f"s-{i}", str(audio), text=f"text {i}", language="be", duration=1.0)
            for i in (1, 2)
        ],
    )
    return folder


DAMAGE = {
    "no wav.scp": ("wav.scp", None, "no wav.scp"),
    "empty": ("text", b"", "text: is empty"),
    "unsorted": ("text", b"s-2 b\ns-1 a\n", "text:2: s-1 is not in order after s-2"),
    "double": ("utt2spk", b"s-1 s\ns-1 s\n", "utt2spk:2: s-1 is there twice"),
    "missing": ("text", b"s-1 a\n", "1 ids missing, 0 unknown compared"),
    "unknown": ("utt2lang", b"s-1 be\ns-2 be\ns-3 be\n", "0 ids missing, 1 unknown"),
    "latin-1": ("text", "s-1 a\ns-2 été\n".encode("latin-1"), "text:2: not UTF-8 (byte 0xe9)"),
    "utf-16": ("text", "s-1 a\n".encode("utf-16"), "text:1: not UTF-8"),
    "byte order mark": ("text", b"\xef\xbb\xbfs-1 a\ns-2 b\n", "text:1: begins with a byte order"),
    "empty line": ("text", b"s-1 a\n\ns-2 b\n", "text:2: expected an id"),
    "leading blank": ("text", b" s-1 a\ns-2 b\n", "text:1: expected an id"),
    "no value": ("wav.scp", b"s-1 /x\ns-2\n", "wav.scp:2: s-2 has no value"),
    "duration no number": ("utt2dur", b"s-1 1.0\ns-2 long\n", "s-2 has 'long'"),
    "duration zero": ("utt2dur", b"s-1 1.0\ns-2 0\n", "s-2 has '0'"),
    "duration NaN": ("utt2dur", b"s-1 nan\ns-2 1\n", "s-1 has 'nan'"),
    "segment fields": ("segments", b"s-1 s-1 0\ns-2 s-2 0 1\n", "segments:1: expected <utterance>"),
    "segment number": ("segments", b"s-1 s-1 0 one\ns-2 s-2 0 1\n", "segments:1: "),
    "segment backwards": ("segments", b"s-1 s-1 0 1\ns-2 s-2 2 1\n", "segments:2: "),
    "segment infinite": ("segments", b"s-1 s-1 0 inf\ns-2 s-2 0 1\n", "segments:1: "),
    "segment unknown": ("segments", b"s-1 nix 0 1\ns-2 s-2 0 1\n", "segments:1: recording nix"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_directory_gives_one_sentence(good, case):
    name, content, said = DAMAGE[case]
    if content is None:
        (good / name).unlink()
    else:
        (good / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_data_dir(good)
    message = str(caught.value)
    assert said in message
    assert str(good) in message
    assert "\n" not in message


def test_a_path_followed_by_a_bar_is_not_run(good):
    audio = read_data_dir(good)[0].audio
    (good / "wav.scp").write_text(f"s-1 {audio}\ns-2 {audio} |\n")
    with pytest.raises(DataError, match=r"wav\.scp:2: s-2 is the file .* remove the \|"):
        read_data_dir(good)


def test_text_can_be_demanded(good):
    assert read_data_dir(good, require_text=True)
    (good / "text").unlink()
    assert read_data_dir(good)[0].text is None
    with pytest.raises(DataError, match="no text"):
        read_data_dir(good, require_text=True)


def test_load_utterances_takes_either_kind(good, tmp_path):
    utterances = load_utterances(good)
    write_manifest(tmp_path / "m.jsonl", utterances)
    assert load_utterances(tmp_path / "m.jsonl") == load_utterances(str(good)) == utterances
    with pytest.raises(DataError, match="nowhere"):
        load_utterances(tmp_path / "nowhere")
