"""DNSMOS against speechmos itself, and what gets no score."""

import csv
import importlib.metadata
import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr

from speechadapt_eval import EvalError
from speechadapt_eval.audio.distillmos import Distillmos
from speechadapt_eval.audio.dnsmos import Dnsmos, log_mel
from speechadapt_eval.audio.mos import Mos, predict_mos, summarise
from speechadapt_eval.audio.sources import find_sources

RATE = 16_000


def voice(seconds, noise=0.0):
    """Syllables of a buzzing voice that glides, and noise that is the same everywhere."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.6 * t)) / RATE
    buzz = sum(np.sin(k * phase + k * k) / k for k in range(1, 40))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1) * (np.sin(2 * np.pi * 0.31 * t) > -0.6)
    hiss = np.sin(1e5 * np.sin(np.arange(len(t)) * 12.9898))  # no generator's version matters
    return 0.08 * buzz * syllables + noise * hiss


@pytest.fixture(scope="module")
def dnsmos():
    return Dnsmos()


# What speechmos 0.0.1.1 (librosa 0.11.0, onnxruntime 1.31.1) says, by
# from speechmos import dnsmos; dnsmos.run(voice(seconds, noise), 16000)
FIXTURES = [  # seconds, noise, sig, bak, ovrl, p808, windows
    (4.0, 0.0, 2.116284, 3.578721, 1.816406, 2.49573, 7),
    (9.5, 0.01, 2.75134, 2.169795, 1.798601, 2.307235, 1),
    (18.2, 0.05, 1.219354, 1.114482, 1.106702, 2.202591, 7),  # of nine windows two are skipped
]


@pytest.mark.parametrize("case", FIXTURES, ids=lambda case: f"{case[0]} s")
def test_same_as_speechmos_stored(dnsmos, case):
    scores = dnsmos(voice(*case[:2]))
    assert scores.windows == case[-1]
    found = (scores.sig, scores.bak, scores.ovrl, scores.p808)
    assert found == pytest.approx(case[2:-1], abs=1e-4)


def test_same_as_speechmos_run_now(dnsmos):
    for needed in ("librosa", "requests"):
        pytest.importorskip(needed)
    theirs = importlib.import_module("speechmos.dnsmos")
    for samples in (voice(1.3, 0.002), voice(10.01, 0.02)):
        ours = dnsmos(samples)
        expected = theirs.run(samples, RATE)
        for scale in ("sig", "bak", "ovrl", "p808"):
            assert getattr(ours, scale) == pytest.approx(expected[f"{scale}_mos"], abs=1e-4)


def test_mel_against_librosa():
    librosa = pytest.importorskip("librosa")
    wave = voice(2.0, 0.01)
    mel = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=321, hop_length=160, n_mels=120)
    expected = (librosa.power_to_db(mel, ref=np.max) + 40) / 40
    np.testing.assert_allclose(log_mel(wave), expected.T, atol=1e-6)


def test_mel_of_zeros_and_of_one_peak():
    assert (log_mel(np.zeros(1600)) == 1).all()  # everything is as loud as the loudest
    tone = np.sin(2 * np.pi * 2000 * np.arange(16_000) / RATE)
    found = log_mel(tone)
    assert found.max() == 1 and found.min() == -1  # 0 dB and the floor of -80 dB


def test_no_samples_end_at_once(dnsmos):
    with pytest.raises(ValueError, match="without samples"):
        dnsmos(np.zeros(0))


def test_speechmos_is_not_imported():
    code = (
        "import sys, numpy; from speechadapt_eval.audio.dnsmos import Dnsmos; "
        "Dnsmos()(numpy.ones(99)); "
        "assert not {'speechmos', 'librosa', 'requests', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_speechmos(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(EvalError, match=r"speechadapt\[mos\]"):
        Dnsmos()


def test_distillmos_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distillmos", None)
    with pytest.raises(EvalError, match=r"pip install --no-deps distillmos==0\.9\.1"):
        Distillmos()
    assert "torchaudio" not in sys.modules


@pytest.mark.skipif(not importlib.util.find_spec("distillmos"), reason="needs distillmos")
def test_distillmos():
    score = Distillmos()
    whole = voice(12, 0.01)
    assert 1 < score(whole) < 5
    assert score(whole) == pytest.approx(score(0.1 * whole), abs=1e-3)  # levels do not count
    period = voice(3, 0.01)
    assert score(period) == pytest.approx(score(np.resize(period, 122_880)), abs=1e-5)
    assert score(whole + 0.1 * voice(12, 1)) < score(whole)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A recording for each rule."""
    folder = tmp_path_factory.mktemp("clips")

    def write(name, samples, rate=RATE, subtype="FLOAT"):
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype=subtype)

    good = voice(9.5, 0.01)
    write("good", good)
    write("stereo", np.stack([good, good], axis=1))
    write("loud", voice(5) * 9)
    write("nan", np.where(np.arange(80_000) == 7, np.nan, voice(5)))
    write("none", np.zeros(0))
    write("fast", soxr.resample(good, RATE, 44_100), 44_100)
    write("short", voice(3.99))
    write("silent", 5e-4 * voice(5))
    write("almost_silent", np.where(np.arange(80_000) < 800, 0.5, 0.0))  # a click of 50 ms
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    return folder


@pytest.fixture(scope="module")
def rows(clips, dnsmos):
    return {row.id: row for row in predict_mos(find_sources([clips]), dnsmos)}


def test_one_row_each(clips, rows):
    assert rows.keys() == {path.stem for path in clips.iterdir()}
    for row in rows.values():
        scores = [row.sig, row.bak, row.ovrl, row.p808]
        assert all(map(math.isnan, scores)) if row.reason else all(1 <= s <= 5 for s in scores)
        assert bool(row.windows) is not bool(row.reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loud", "clipping: samples reach"),
        ("nan", "has samples that are NaN"),
        ("none", "no samples"),
        ("short", "too short: 3.99 s"),
        ("silent", "silent: less than 5 %"),
        ("almost_silent", "silent: less than 5 %"),
        ("broken", "unreadable: "),
    ],
)
def test_reasons(rows, name, reason):
    assert rows[name].reason.startswith(reason)


def test_channels_and_rates(clips, rows, dnsmos):
    assert rows["stereo"].ovrl == pytest.approx(rows["good"].ovrl, abs=1e-6)
    assert rows["fast"].rate == 44_100
    assert rows["fast"].ovrl == pytest.approx(rows["good"].ovrl, abs=0.1)
    (row,) = predict_mos(find_sources([clips / "fast.wav"]), dnsmos, resample=False)
    assert row.reason == "not 16 kHz: 44100 Hz" and math.isnan(row.ovrl)


def test_minimum_length(clips, dnsmos):
    sources = find_sources([clips / "good.wav"])
    (row,) = predict_mos(sources, dnsmos, min_seconds=9.5)
    assert not row.reason
    (row,) = predict_mos(sources, dnsmos, min_seconds=9.51)
    assert row.reason == "too short: 9.50 s"
    for wrong in (0, -1, math.nan):
        with pytest.raises(EvalError, match="minimum length"):
            list(predict_mos(sources, dnsmos, min_seconds=wrong))


def test_means_are_over_what_has_scores(rows):
    (group,) = summarise(list(rows.values()))
    assert (group.files, group.scored) == (10, 3)
    assert sum(group.excluded.values()) == 7 and group.excluded["silent"] == 2
    good = [rows[name].ovrl for name in ("good", "stereo", "fast")]
    assert group.means["ovrl"] == pytest.approx(np.mean(good))
    assert min(good) <= group.interval.low <= group.interval.high <= max(good)


def test_no_mean_over_nothing():
    (group,) = summarise([Mos("a", "g", "a.wav", reason="no samples")])
    assert math.isnan(group.means["ovrl"]) and math.isnan(group.interval.low)
    (group,) = summarise([Mos("a", "g", "a.wav", 5.0, RATE, 3, 3, 3, 3, 1)])
    assert group.means["ovrl"] == 3 and "one of the recordings only" in group.interval.note


def run(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", "speechadapt_eval.cli.main", "mos", *args],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=120,
        check=False,
    )  # fmt: skip


def test_command(clips, tmp_path):
    line = '{"id": "%s", "hyp": null, "ref": "тэкст", "x": [1, {"y": 2}]%s}\n'
    (tmp_path / "utts.jsonl").write_text(
        line % ("good", "") + line % ("none", ', "mos": 9'), encoding="utf-8"
    )
    args = ("good.wav", "short.wav", "none.wav")
    done = run(
        clips, *args, "--out", str(tmp_path / "out"), "--min-ovrl", "1.5",
        "--utts", str(tmp_path / "utts.jsonl"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert ".: without a score: 1 too short, 1 no samples." in done.stdout
    with (tmp_path / "out" / "mos_utt.csv").open(encoding="utf-8") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    assert list(table) == ["good", "short", "none"]
    assert float(table["good"]["ovrl"]) == pytest.approx(1.798601, abs=1e-4)
    assert table["none"]["ovrl"] == "" and table["none"]["reason"] == "no samples"
    with (tmp_path / "out" / "mos.csv").open(encoding="utf-8") as file:
        (group,) = csv.DictReader(file)
    assert (group["files"], group["scored"], group["excluded"]) == ("3", "1", "2")
    assert group["window_s"] == "9.01" and group["model"].startswith("DNSMOS of speechmos 0.0")
    assert (tmp_path / "out" / "kept").read_text() == "good\n"
    first, second = map(json.loads, (tmp_path / "utts.jsonl").read_text("utf-8").splitlines())
    assert list(first) == ["id", "hyp", "ref", "x", "mos"]
    assert first["ref"] == "тэкст" and first["x"] == [1, {"y": 2}]
    assert first["mos"] == pytest.approx(1.7986, abs=1e-4) and second["mos"] is None


def test_command_json(clips):
    found = json.loads(run(clips, "none.wav", "broken.wav", "--json").stdout)
    assert found["groups"][0]["scored"] == 0 and found["groups"][0]["means"]["ovrl"] is None
    assert [row["id"] for row in found["recordings"]] == ["none", "broken"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("good.wav", "--min-ovrl", "3"), "give --out DIR as well"),
        (("nowhere",), "nowhere is not there"),
        (("good.wav", "--utts", "other.jsonl"), "1 utterances are not among the audio ('who')"),
        (("good.wav", "../*/good.wav", "--utts", "other.jsonl"), "not there"),
        (("good.wav", "--min-seconds", "0"), "minimum length"),
    ],
)
def test_mistakes(clips, tmp_path, args, message):
    (tmp_path / "other.jsonl").write_text('{"id": "who"}\n', encoding="utf-8")
    args = [str(tmp_path / arg) if arg == "other.jsonl" else arg for arg in args]
    done = run(clips, *args)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.startswith("speechadapt-eval: ") and done.stderr.count("\n") == 1


def test_ids_of_two_groups(clips, tmp_path):
    (tmp_path / "good.wav").write_bytes((clips / "good.wav").read_bytes())
    (tmp_path / "utts.jsonl").write_text('{"id": "good"}\n', encoding="utf-8")
    both = (str(clips / "good.wav"), str(tmp_path / "good.wav"))
    done = run(tmp_path, *both, "--utts", "utts.jsonl")
    assert done.returncode == 2 and "('good')" in done.stderr
    assert (tmp_path / "utts.jsonl").read_text() == '{"id": "good"}\n'
