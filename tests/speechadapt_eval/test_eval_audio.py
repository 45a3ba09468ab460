"""Finding and reading audio; degraded audio against its reference."""

import csv
import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pystoi
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError
from speechadapt_eval.audio.paired import METRICS, compare, match, mean_values, si_sdr, stoi
from speechadapt_eval.audio.sources import Source, Unscorable, find_sources, is_silent, read_audio

RATE = 16_000


def speech(seconds, seed=0):
    """Bursts of noise: enough of speech for STOI."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.1 * rng.normal(size=len(t)) * (1.2 + np.sin(2 * np.pi * 3 * t))


def with_noise(clean, decibel, seed=1):
    """Noise without mean or likeness to the signal, so that its ratio is exact."""
    noise = np.random.default_rng(seed).normal(size=len(clean))
    noise -= noise.mean()
    centred = clean - clean.mean()
    noise -= centred * (noise @ centred) / (centred @ centred)
    return clean + noise * np.linalg.norm(centred) / np.linalg.norm(noise) / 10 ** (decibel / 20)


@given(st.floats(-30, 60), st.floats(0.01, 100), st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
def test_si_sdr_is_the_ratio_mixed_in(decibel, factor, offset):
    clean = speech(0.5)
    mixed = factor * with_noise(clean, decibel) + offset
    assert si_sdr(clean, mixed) == pytest.approx(decibel, abs=1e-6)
    assert si_sdr(clean, -mixed) == pytest.approx(decibel, abs=1e-6)


def test_si_sdr_by_its_definition():
    clean, other = speech(1), speech(1, seed=5) + 0.3 * speech(1)
    s, e = clean - clean.mean(), other - other.mean()
    alpha = (e @ s) / (s @ s)
    expected = 10 * math.log10(np.sum((alpha * s) ** 2) / np.sum((alpha * s - e) ** 2))
    assert si_sdr(clean, other) == pytest.approx(expected, abs=1e-9)


def test_si_sdr_without_a_value():
    with pytest.raises(Unscorable, match="infinite"):
        si_sdr(speech(1), 0.3 * speech(1))
    with pytest.raises(Unscorable, match="minus infinity"):
        si_sdr(np.array([1.0, -1, 0, 0]), np.array([0.0, 0, 1, -1]))


def test_stoi_is_that_of_pystoi():
    clean = speech(2)
    noisy = with_noise(clean, 0)
    assert stoi(clean, noisy) == pystoi.stoi(clean, noisy, RATE)
    assert 0.3 < stoi(clean, noisy) < stoi(clean, with_noise(clean, 20)) < 1


def test_stoi_of_too_little():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pystoi.stoi(speech(0.2), speech(0.2), RATE) == 1e-5  # what must not be reported
    with pytest.raises(Unscorable, match=r"0\.4 s"):
        stoi(speech(0.2), speech(0.2))


def test_pesq():
    pytest.importorskip("pesq")
    clean = speech(2)
    assert METRICS["pesq"](clean, clean) == pytest.approx(4.64, abs=0.01)
    with pytest.raises(Unscorable, match=r"0\.25 s"):
        METRICS["pesq"](clean[:3000], clean[:3000])
    with pytest.raises(Unscorable, match="no speech"):
        METRICS["pesq"](np.zeros(20_000), clean[:20_000])


def test_visqol():
    pytest.importorskip("visqol")
    clean = speech(3)
    assert METRICS["visqol"](clean, clean) == pytest.approx(5, abs=0.01)
    assert METRICS["visqol"](clean, with_noise(clean, 0)) < 4
    with pytest.raises(Unscorable, match="ViSQOL"):
        METRICS["visqol"](clean[:2000], clean[:2000])


def test_metric_that_is_not_installed(monkeypatch, pairs):
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "visqol", None)
    for name, package in (("pesq", r"speechadapt\[pesq\]"), ("visqol", "visqol-python")):
        with pytest.raises(EvalError, match=package):
            list(compare(pairs, [name]))
    with pytest.raises(EvalError, match="choose one of si_sdr"):
        list(compare(pairs, ["snr"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    clean = speech(2)
    for name, reference, degraded in (
        ("a", clean, with_noise(clean, 10)),
        ("b", clean, 0.5 * clean),
        ("cut", clean, clean[: RATE + 1]),
        ("late", clean, clean[:-1500]),
        ("silent", np.zeros(RATE), clean[:RATE]),
        ("quiet", clean[:RATE], np.zeros(RATE)),
    ):
        for side, samples in (("clean", reference), ("other", degraded)):
            (root / side / "sub").mkdir(parents=True, exist_ok=True)
            soundfile.write(root / side / "sub" / f"{name}.wav", samples, RATE, subtype="DOUBLE")
    (root / "clean" / "sub" / "gone.wav").write_bytes(b"no audio")
    soundfile.write(root / "other" / "sub" / "gone.wav", clean, RATE)
    return root


@pytest.fixture(scope="module")
def pairs(folder):
    return match(find_sources([folder / "clean"]), find_sources([folder / "other"]))


def test_pairs(pairs):
    rows = {row.id: row for row in compare(pairs)}
    assert len(rows) == 7
    assert rows["sub/a"].values["si_sdr"] == pytest.approx(10, abs=1e-6)
    assert rows["sub/a"].reasons == {}
    assert rows["sub/b"].reasons == {"si_sdr": "identical up to a factor: infinite"}
    assert rows["sub/b"].values["stoi"] == pytest.approx(1)
    assert rows["sub/late"].seconds == pytest.approx(2 - 1500 / RATE)  # cut to the shorter
    for name, reason in (
        ("cut", "lengths differ: 2.00 and 1.00 s"),
        ("silent", "reference silent"),
        ("quiet", "degraded silent"),
        ("gone", "reference unreadable: "),
    ):
        row = rows[f"sub/{name}"]
        assert all(math.isnan(value) for value in row.values.values())
        assert all(why.startswith(reason) for why in row.reasons.values())
    assert mean_values(list(rows.values()), "si_sdr") == (pytest.approx(10, abs=1e-6), 1)
    mean, n = mean_values([rows["sub/cut"]], "stoi")
    assert math.isnan(mean) and n == 0


def test_matching(folder, tmp_path):
    a, b = (Source(name, folder / name) for name in "ab")
    assert match([a], [b]) == [(a, b)]  # one file each: names do not matter
    with pytest.raises(EvalError, match=r"1 have no degraded audio \('a'\)"):
        match([a, b], [b])
    with pytest.raises(EvalError, match=r"1 have no reference audio \('a'\)"):
        match([b], [a, b])
    with pytest.raises(EvalError, match="not unique"):
        match([a, b], [a, Source("a", tmp_path)])


def test_command(folder, tmp_path):
    args = ["audio", "clean", "other", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "speechadapt_eval.cli.main"]
    done = subprocess.run(
        command + args, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "si_sdr: mean 10.000 over 1 pairs, 6 without" in done.stdout
    assert "over 3 pairs, 4 without" in done.stdout
    with (tmp_path / "intrusive.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows["sub/a"]) == ["id", "group", "seconds", "si_sdr", "stoi", "reason"]
    assert rows["sub/silent"]["reason"] == "reference silent" and rows["sub/silent"]["stoi"] == ""


# Finding and reading


def test_data_dir_with_segments(tmp_path):
    samples = speech(3)
    soundfile.write(tmp_path / "long.flac", samples, RATE)
    (tmp_path / "wav.scp").write_text(f"rec {tmp_path}/long.flac\n")
    (source,) = find_sources([tmp_path])
    assert (source.id, source.group, source.end) == ("rec", str(tmp_path), None)
    (tmp_path / "segments").write_text("u1 rec 0.5 1.25\nu2 rec 2.5 9\n")
    one, two = find_sources([tmp_path])
    whole = read_audio(source).samples
    np.testing.assert_array_equal(read_audio(one).samples, whole[8_000:20_000])
    np.testing.assert_array_equal(read_audio(two).samples, whole[40_000:])
    with pytest.raises(Unscorable, match="no samples"):
        read_audio(Source("x", tmp_path / "long.flac", start=77))
    with pytest.raises(Unscorable, match="no such file"):
        read_audio(Source("x", tmp_path / "other.flac"))


def test_manifest(tmp_path):
    (tmp_path / "utts.jsonl").write_text(
        '{"id": "u1", "audio": "a.wav", "hyp": "x"}\n'
        '{"id": "u2", "audio": "/b.wav", "start": 1, "end": 2.5}\n'
    )
    one, two = find_sources([tmp_path / "utts.jsonl"])
    assert one.path == tmp_path / "a.wav" and one.end is None
    assert str(two.path) == "/b.wav" and (two.start, two.end) == (1, 2.5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav.scp": "a sph2pipe x |\n"}, "'a' is a command"),
        ({"wav.scp": "a\n"}, "'a' has no path"),
        ({"wav.scp": "a x.wav\n", "segments": "u a 2 1\n"}, "'u' needs a recording, start and end"),
        ({"wav.scp": "a x.wav\n", "segments": "u a 0\n"}, "'u' needs a recording"),
        ({"wav.scp": "a x.wav\n", "segments": "u a 0 inf\n"}, "'u' needs a recording"),
        ({"wav.scp": "a x.wav\n", "segments": "u b 0 1\n"}, "recording 'b' of 'u' is not in"),
        ({"x.txt": ""}, "has no audio files"),
        ({"m.jsonl": '{"id": "u"}\n'}, "'u' has no 'audio'"),
        ({"m.jsonl": '{"id": "u", "audio": "a", "start": "x"}\n'}, "no seconds in order"),
        ({"m.jsonl": '{"id": "u", "audio": "a", "start": 3, "end": 2}\n'}, "no seconds in order"),
        ({"m.jsonl": '{"id": "u", "audio": "a", "end": {}}\n'}, "no seconds in order"),
    ],
)
def test_sources_that_are_none(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "m.jsonl" if "m.jsonl" in files else tmp_path
    with pytest.raises(EvalError) as error:
        find_sources([path])
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_twice_in_a_group(tmp_path):
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, speech(0.1), RATE)
    with pytest.raises(EvalError, match="give each once"):
        find_sources([tmp_path])
    assert len(find_sources([tmp_path / "a.wav"])) == 1


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_audio_or_a_reason(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.wav"
    path.write_bytes(data)
    with pytest.raises(Unscorable):
        read_audio(Source("x", path))


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_manifest_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps({"id": "u", "audio": text, "start": text}), encoding="utf-8")
    try:
        assert find_sources([path])[0].start == float(text)
    except EvalError as error:
        assert "'u'" in str(error)


def test_silence():
    assert is_silent(np.zeros(10)) and is_silent(np.full(RATE, 9e-4))
    assert not is_silent(np.full(RATE, 2e-3)) and not is_silent(np.full(10, 0.1))
    hum = np.zeros(RATE)
    hum[: RATE // 10] = 0.1
    assert not is_silent(hum)  # a tenth of it sounds
