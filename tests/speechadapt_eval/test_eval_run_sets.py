"""Test sets as files have them, and the sound of their utterances, sample by sample."""

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip, ClipError, duration
from speechadapt_eval.runs.sets import read_set, read_sets


def write(folder, **tables):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def sound(tmp_path):
    """One second of 16-bit noise at 8 kHz, as flac; and its samples."""
    samples = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    path = tmp_path / "a file.flac"
    soundfile.write(path, samples, 8000, subtype="PCM_16")
    return path, samples


def wav_samples(data):
    """Read by the standard library, not by what wrote it."""
    with wave.open(io.BytesIO(data)) as file:
        raw = file.readframes(file.getnframes())
        width = file.getsampwidth()
        return file.getframerate(), width, raw


def test_a_data_directory(tmp_path):
    folder = write(
        tmp_path / "data" / "be" / "test",
        wav_scp="r1 /some where/a.flac\nr2 sox x.mp3 -t wav - |\n",
        segments="u1 r1 0.5 1.25\nu2 r1 1.25 -1\nu3 r2 0 2\n",
        text="u1 ў\u2028шчырасці\nu2\nu3 a  b\nelsewhere x\n",
        utt2lang="u1 be\nu2 be\nu3 be\n",
        utt2spk="u1 1\nu2 1\nu3 2\n",
        utt2snr="u1 5\nu2 -2.5\nu3 clean\n",
        utt2dur="u1 0.75\nu2 1\nu3 2\n",
    )
    read = read_set(str(folder))
    assert (read.name, read.language) == ("be-test", "be")
    assert [item.clip for item in read.items] == [
        Clip("u1", "/some where/a.flac", "be", 0.5, 1.25),
        Clip("u2", "/some where/a.flac", "be", 1.25, None),
        Clip("u3", "sox x.mp3 -t wav - |", "be", 0.0, 2.0),
    ]
    assert [item.ref for item in read.items] == ["ў\u2028шчырасці", "", "a  b"]
    assert [item.fields["snr"] for item in read.items] == [5, -2.5, "clean"]
    assert [item.fields["speaker"] for item in read.items] == ["1", "1", "2"]
    assert [item.fields["duration"] for item in read.items] == [0.75, 1, 2]


def test_a_manifest(tmp_path):
    lines = [
        {"id": "a b", "audio": "x.wav", "ref": "one\ntwo", "lang": "ro", "noise": "babble"},
        {"id": "c", "audio": "/y.wav", "text": "drei", "language": "de", "start": 1, "end": 2.5},
        {"id": "d", "audio": "cat z.wav |", "hyp": "of another system"},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    read = read_set(str(path))
    assert (read.name, read.language) == ("mixed", None)
    assert [item.clip for item in read.items] == [
        Clip("a b", str(tmp_path / "x.wav"), "ro"),
        Clip("c", "/y.wav", "de", 1, 2.5),
        Clip("d", "cat z.wav |"),
    ]
    assert [item.ref for item in read.items] == ["one\ntwo", "drei", None]
    assert read.items[0].fields == {"noise": "babble"}


def test_names_and_limit(tmp_path):
    folder = write(tmp_path / "ro=1", wav_scp="a x\nb y\nc z\n")
    read = read_sets([f"mine={folder}", str(folder)], 2)
    assert [one.name for one in read] == ["mine", safe(folder)]
    assert [len(one.items) for one in read] == [2, 2]
    assert [item.ref for item in read[0].items] == [None, None]


def safe(folder):
    return f"{folder.parent.name}-ro-1"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"wav_scp": "a x\na y\n"}, "wav.scp:2: utterance 'a' occurs a second time"),
        ({"wav_scp": "a\n"}, "wav.scp: 'a' without a file or command"),
        ({"wav_scp": "a x\n", "text": "b y\n"}, "text: 1 utterances of wav.scp or segments"),
        ({"wav_scp": "a x\n", "segments": "u b 0 1\n"}, "'u' is of 'b', which wav.scp has not"),
        ({"wav_scp": "a x\n", "segments": "u a 0\n"}, "'a 0' instead of recording, start, end"),
        ({"wav_scp": "a x\n", "segments": "u a 0 nan\n"}, "instead of recording, start, end"),
    ],
)
def test_damaged_directories(tmp_path, tables, message):
    with pytest.raises(EvalError) as error:
        read_set(str(write(tmp_path / "d", **tables)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "a"}, "has no 'audio'"),
        ({"id": "a", "audio": " "}, "has no 'audio'"),
        ({"id": "a", "audio": "x", "text": 3}, "'text' is 3, not a text"),
        ({"id": "a", "audio": "x", "language": []}, "'language' is [], not a text"),
        ({"id": "a", "audio": "x", "start": "0"}, "'start' is '0', not a number"),
        ({"id": "a", "audio": "x", "duration": True}, "'duration' is True, not a number"),
    ],
)
def test_damaged_manifests(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(EvalError) as error:
        read_set(str(path))
    assert message in str(error.value) and "'a'" in str(error.value)


def test_a_whole_file_is_passed_on_as_it_is(sound):
    path, samples = sound
    clip = Clip("u", str(path))
    assert clip.data() == path.read_bytes() and duration(clip.data()) == 1
    with clip.file() as file:
        assert file == path
    with clip.wav() as file:
        assert wav_samples(file.read_bytes()) == (8000, 2, samples.tobytes())
        assert file.suffix == ".wav"
    assert not file.exists()
    np.testing.assert_array_equal(clip.samples(8000), samples.astype(np.float32) / 32768)
    assert clip.samples().shape == (16000,)
    wav = path.with_suffix(".wav")
    soundfile.write(wav, samples, 8000)
    with Clip("u", str(wav)).wav() as file:
        assert file == wav


def test_a_stretch_is_cut_to_the_sample(sound):
    path, samples = sound
    clip = Clip("u", str(path), start=0.25, end=0.5)
    assert wav_samples(clip.data()) == (8000, 2, samples[2000:4000].tobytes())
    with clip.file() as file:
        assert file.suffix == ".wav" and file.read_bytes() == clip.data()
    assert not file.exists()
    rounded = Clip("u", str(path), start=0.25, end=1.005)  # Kaldi's tools round to 10 ms
    assert wav_samples(rounded.data())[2] == samples[2000:].tobytes()
    for start, end in ((0.5, 1.1), (0.5, 0.25), (1.0, None), (-1, 0.5)):
        with pytest.raises(ClipError, match="a stretch from"):
            Clip("u", str(path), start=start, end=end).data()


def test_24_bits_stay_24_bits(tmp_path):
    samples = np.random.default_rng(1).integers(-(2**23), 2**23, 500).astype(np.int32) << 8
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, 48000, subtype="PCM_24")
    rate, width, raw = wav_samples(Clip("u", str(path), start=0.0).data())
    assert (rate, width) == (48000, 3)
    assert raw == samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()


def test_a_command_is_run(sound):
    path, samples = sound
    clip = Clip("u", f"cat '{path}' |", start=0.5)
    assert wav_samples(clip.data())[2] == samples[4000:].tobytes()
    clip = Clip("u", f"cat '{path}' |")
    assert clip.data() == path.read_bytes()
    with clip.file() as file:
        assert file.read_bytes() == path.read_bytes()
    loaded = clip.loaded()
    path.unlink()
    assert loaded == clip and loaded.samples(8000).shape == (8000,)
    with pytest.raises(ClipError, match=r"exit code 1, 0 bytes of audio; it said: .*no_such"):
        Clip("u", "cat no_such |").data()


def test_what_is_no_sound(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFFnot a sound")
    clip = Clip("u", str(path))
    assert duration(clip.data()) is None
    with pytest.raises(ClipError, match=r"a\.wav: not readable as audio"):
        clip.samples()
    for missing in (Clip("u", str(tmp_path / "none")), Clip("u", "a\0b"), Clip("u", str(tmp_path))):
        with pytest.raises(ClipError, match="cannot be read"):
            missing.data()
    with pytest.raises(ClipError, match="there is no such file"), Clip("u", "none").file():
        pass
    assert Path("none").exists() is False
