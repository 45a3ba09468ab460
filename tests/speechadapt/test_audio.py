"""Reading sound: every width, rate and channel count, and one sentence for each bad file."""

import io
import os
import struct
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from speechadapt import audio
from speechadapt.audio import (
    SAMPLE_RATE,
    audio_duration,
    load_audio,
    resample,
    resample_tensor,
    write_flac,
)
from speechadapt.errors import AudioError, OutputError


def tone(rate=SAMPLE_RATE, seconds=1.0, hertz=440.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def wav_bytes(samples, rate=SAMPLE_RATE, **options):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", **options)
    return stream.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_width_and_rate_gives_the_same_sound(tmp_path, rate, subtype):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(rate), rate, subtype=subtype)
    wave = load_audio(path)
    assert wave.dtype == np.float32
    assert wave.shape == (SAMPLE_RATE,)
    middle = slice(1_000, -1_000)  # a resampler's filter sees silence before and after
    assert np.abs(wave - tone())[middle].max() < (0.01 if subtype == "PCM_U8" else 1e-3)
    assert audio_duration(path) == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, tone(), SAMPLE_RATE)
    assert np.abs(load_audio(str(path))[:16_000] - tone())[2_000:-2_000].max() < 0.05


def test_channels_are_averaged(tmp_path):
    left, right = tone(amplitude=0.6), tone(amplitude=0.2)
    soundfile.write(tmp_path / "x.wav", np.stack([left, right], 1), SAMPLE_RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "x.wav") - tone(amplitude=0.4)).max() < 1e-6


def test_over_full_scale_is_clipped(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(amplitude=3.0), SAMPLE_RATE, subtype="FLOAT")
    wave = load_audio(tmp_path / "x.wav")
    assert wave.min() == -1.0 and wave.max() == 1.0


def test_a_stretch_is_the_same_samples(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x.flac"
    write_flac(path, 0.1 * rng.standard_normal(SAMPLE_RATE).astype(np.float32))
    whole = load_audio(path)
    assert np.array_equal(load_audio(path, 0.25, 0.5), whole[4_000:8_000])
    assert np.array_equal(load_audio(path, 0.25), whole[4_000:])
    assert np.array_equal(load_audio(path, end=0.5), whole[:8_000])
    assert np.array_equal(load_audio(path, 0.25, 1.009), whole[4_000:])  # rounded to 10 ms


@pytest.mark.parametrize(
    "stretch",
    [(-0.1, 0.5), (1.0, None), (2.0, 3.0), (0.5, 0.5), (0.5, 0.4), (0.0, 1.1), (np.nan, None)],
)
def test_a_stretch_outside_is_refused(tmp_path, stretch):
    write_flac(tmp_path / "x.flac", tone())
    with pytest.raises(AudioError, match=r"x\.flac: asked for"):
        load_audio(tmp_path / "x.flac", *stretch)


def test_kaldi_commands_run_in_a_shell(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(), SAMPLE_RATE)
    command = f"cat {path} | cat |"
    assert np.array_equal(load_audio(command), load_audio(path))
    assert np.array_equal(load_audio(command, 0.5, 0.75), load_audio(path)[8_000:12_000])
    assert audio_duration(command) == 1.0


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF024])
def test_a_pipe_need_not_know_its_length(tmp_path, length):
    whole = wav_bytes(tone())
    data = whole.index(b"data") + 4
    unknown = struct.pack("<I", length)
    (tmp_path / "x").write_bytes(whole[:4] + unknown + whole[8:data] + unknown + whole[data + 4 :])
    assert len(load_audio(f"cat {tmp_path}/x |")) == SAMPLE_RATE


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false |", "exit code 1"),
        ("echo no such codec >&2; exit 3 |", "it said: no such codec"),
        ("true |", "0 bytes"),
        ("echo hello |", "not readable as audio"),
    ],
)
def test_commands_that_fail(command, said):
    with pytest.raises(AudioError, match=said):
        load_audio(command)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(2 * SAMPLE_RATE), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(AudioError, match=rf"x\.{suffix}: "):
        load_audio(path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.77, 0.95])
def test_ogg_files_cut_anywhere_are_refused(tmp_path, share):
    path = tmp_path / "x.ogg"
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(5 * SAMPLE_RATE), SAMPLE_RATE)
    assert len(load_audio(path)) == 5 * SAMPLE_RATE
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(AudioError, match=r"x\.ogg"):
        load_audio(path)


def nan_wav():
    samples = tone()
    samples[123] = np.nan
    return wav_bytes(samples, subtype="FLOAT")


def infinite_wav():
    samples = np.stack([tone(), tone()], 1)
    samples[7] = np.inf, -np.inf
    return wav_bytes(samples, subtype="DOUBLE")


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"This is no sound.\n" * 100, "not readable as audio"),
    "zeros": (bytes(10_000), "not readable as audio"),
    "header only": (wav_bytes(tone())[:20], "not readable|0 samples"),
    "no samples": (wav_bytes(np.zeros(0)), "0 samples"),
    "cut": (wav_bytes(tone())[:-1000], "cut short, 1000 bytes"),
    "NaN": (nan_wav(), "sample 123 is NaN"),
    "infinite": (infinite_wav(), "sample 7 is NaN or infinite"),
    "absurd rate": (wav_bytes(tone(), 10), "sample rate of 10 Hz"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["x.wav", "x"])
def test_bad_files_give_one_sentence(tmp_path, case, name):
    content, said = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=said) as caught:
        load_audio(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["empty", "text", "no samples", "cut", "absurd rate"])
def test_durations_of_bad_files(tmp_path, case):
    content, said = BAD[case]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(AudioError, match=said):
        audio_duration(tmp_path / "x.wav")


def test_missing_folders_and_odd_names(tmp_path):
    with pytest.raises(AudioError, match=r"nix\.wav: cannot be opened \(No such file"):
        load_audio(tmp_path / "nix.wav")
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio("nul\0byte")
    (tmp_path / "x.raw").write_bytes(bytes(100))  # a format without a header
    with pytest.raises(AudioError, match="not readable as audio"):
        load_audio(tmp_path / "x.raw")


def test_write_flac_is_exact_and_atomic(tmp_path):
    samples = (np.arange(-1_000, 1_000) / 32_768).astype(np.float32)
    path = tmp_path / "deep" / "x.flac"
    write_flac(path, samples)
    assert np.array_equal(load_audio(path), samples)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    with pytest.raises(ValueError, match="dtype"):
        write_flac(path, np.array(["no sound"]))
    assert np.array_equal(load_audio(path), samples)
    assert [left.name for left in path.parent.iterdir()] == ["x.flac"]


def test_write_flac_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, so nothing lies below it"):
        write_flac(tmp_path / "file" / "x.flac", np.zeros(10, np.float32))


def test_resample_keeps_what_fits_and_removes_the_rest():
    low, high = tone(48_000, hertz=1_000), tone(48_000, hertz=12_000)
    wave = resample((low + high).astype(np.float32), 48_000, SAMPLE_RATE)
    assert wave.dtype == np.float32
    assert np.abs(wave - tone(hertz=1_000))[1_000:-1_000].max() < 1e-3
    same = np.ones(5, np.float32)
    assert np.array_equal(resample(same, 8_000, 8_000), same)


def test_resample_tensor_on_the_cpu_is_soxr(monkeypatch):
    monkeypatch.setattr(audio, "torchaudio", lambda: pytest.fail("asked for on the CPU"))
    wave = torch.from_numpy(tone(48_000).astype(np.float32))
    expected = resample(wave.numpy(), 48_000, SAMPLE_RATE)
    assert torch.equal(resample_tensor(wave, 48_000, SAMPLE_RATE), torch.from_numpy(expected))


class GpuTensor(torch.Tensor):
    """A CPU tensor that says it is on a GPU: all that the choice looks at."""

    is_cuda = True


def test_resample_tensor_on_a_gpu_takes_torchaudio_where_it_imports(monkeypatch):
    calls = []

    def on_gpu(wave, from_rate, to_rate):
        calls.append((from_rate, to_rate))
        return wave[::3]

    library = SimpleNamespace(functional=SimpleNamespace(resample=on_gpu))
    wave = torch.from_numpy(tone(48_000).astype(np.float32)).as_subclass(GpuTensor)
    monkeypatch.setattr(audio, "torchaudio", lambda: library)
    assert len(resample_tensor(wave, 48_000, SAMPLE_RATE)) == SAMPLE_RATE
    assert calls == [(48_000, SAMPLE_RATE)]
    monkeypatch.setattr(audio, "torchaudio", lambda: None)
    assert len(resample_tensor(wave, 48_000, SAMPLE_RATE)) == SAMPLE_RATE
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("content", "works"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", False),
        ("raise RuntimeError('built for another torch')", False),
        ("import no_such_module", False),
        ("version = 1", True),
    ],
)
def test_a_broken_torchaudio_is_no_torchaudio(tmp_path, content, works):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio/__init__.py").write_text(content + "\n")
    code = """
        from speechadapt.optional import torchaudio
        print(torchaudio() is not None, torchaudio() is torchaudio())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.stdout.split() == [str(works), "True"]
