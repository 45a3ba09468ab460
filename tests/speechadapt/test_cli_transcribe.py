"""``speechadapt transcribe`` as users run it, on real files and a small model on disk."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_decoding import waves, write_base

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.audio import load_audio
from speechadapt.cli.inputs import find_recordings
from speechadapt.cli.main import main
from speechadapt.decoding.search import DecodeOptions
from speechadapt.decoding.transcriber import transcribe
from speechadapt.errors import AudioError, ConfigError
from speechadapt.store import save_adapter

LENGTHS = (1.1, 0.4, 0.8)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A transformers folder with a small random Whisper."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    """An adapter for it that changes what it says."""
    backbone = speechadapt.load(base).backbone
    config = BottleneckConfig(bottleneck=4, points=("ffn.out",))
    info = AdapterInfo(
        language="be", trailing_silence=0.5, base="tiny", fingerprint=backbone.fingerprint
    )
    made = Adapter.fresh("be", config, family_of(config), backbone.sites.values(), info)
    generator = torch.Generator().manual_seed(0)
    for _, tensor in made.named_tensors():
        tensor.data = tensor.data + 0.5 * torch.randn(tensor.shape, generator=generator)
    folder = tmp_path_factory.mktemp("adapters") / "be"
    save_adapter(made, folder)
    return folder


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder with three recordings."""
    folder = tmp_path / "clips"
    for name, wave in zip(("b", "a", "c"), waves(*LENGTHS), strict=True):
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
    return folder


def expected(base, clips, adapters=(), route=None):
    """What the library finds, by id."""
    model = speechadapt.load(base, adapters)
    items = [(u.id, load_audio(u.audio)) for u in find_recordings([clips])]
    settings = DecodeOptions(temperatures=(0.0,), language="be", max_tokens=9)
    silence = model.trailing_silence([route])
    found = transcribe(model, items, route=route, options=settings, trailing_silence=silence)
    return {transcript.id: transcript.text for transcript in found}


COMMON = ["--no-fallback", "--max-tokens", "9", "--language", "be"]


def test_a_folder_to_standard_output(base, clips, capsys):
    assert main(["transcribe", str(clips), "--base", str(base), *COMMON]) == 0
    out, err = capsys.readouterr()
    texts = dict(line.split("\t") for line in out.splitlines())
    assert list(texts) == ["a", "b", "c"]
    wanted = expected(base, clips)
    assert texts == {name: " ".join(text.split()) for name, text in wanted.items()}
    assert "3 recordings, 2.3 s in" in err and "real-time factor" in err


def test_one_file_is_plain_text(base, clips, capsys):
    assert main(["transcribe", str(clips / "a.wav"), "--base", str(base), *COMMON]) == 0
    wanted = expected(base, clips / "a.wav")["a"]
    assert capsys.readouterr().out == " ".join(wanted.split()) + "\n"


def test_the_only_adapter_is_the_route_and_gives_language_and_context(base, adapter, clips, capsys):
    command = ["transcribe", str(clips), "--base", str(base), "--adapter", str(adapter)]
    assert main([*command, "--no-fallback", "--max-tokens", "9", "--format", "json"]) == 0
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {item["id"]: item["text"] for item in items} == expected(base, clips, [adapter], "be")
    assert {item["language"] for item in items} == {"be"}
    assert main([*command, *COMMON, "--route", "none", "--format", "json"]) == 0
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {item["id"]: item["text"] for item in items} == expected(base, clips, [adapter])


def test_formats_and_places(base, clips, tmp_path):
    command = ["transcribe", str(clips), "--base", str(base), *COMMON]
    out = tmp_path / "made"
    for kind, suffix in (("txt", ".txt"), ("json", ".json"), ("srt", ".srt"), ("vtt", ".vtt")):
        assert main([*command, "--format", kind, "--out", str(out / kind)]) == 0
        assert sorted(p.name for p in (out / kind).iterdir()) == [f"{i}{suffix}" for i in "abc"]
    found = json.loads((out / "json" / "a.json").read_text("utf-8"))
    assert found["seconds"] == pytest.approx(0.4)
    assert (out / "vtt" / "a.vtt").read_text("utf-8").startswith("WEBVTT\n")
    assert main([*command, "--format", "kaldi", "--out", str(out / "hyp" / "text")]) == 0
    lines = (out / "hyp" / "text").read_text("utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "c"]


def test_beam_timestamps_words_and_full_context(base, clips, capsys):
    command = ["transcribe", str(clips / "a.wav"), "--base", str(base), *COMMON]
    command += ["--beam", "3", "--timestamps", "--word-timestamps", "--format", "json"]
    assert main([*command, "--context", "full"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "".join(word["text"] for word in found["words"]).strip() == found["text"]
    assert main([*command, "--context", "1.5", "--language", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["language_probability"] > 0


def test_data_dirs_and_manifests(base, clips, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    names = ("a", "b", "c")
    (data / "wav.scp").write_text("".join(f"x-{n} {clips}/{n}.wav\n" for n in names))
    (data / "utt2spk").write_text("".join(f"x-{n} x\n" for n in names))
    (data / "spk2utt").write_text("x " + " ".join(f"x-{n}" for n in names) + "\n")
    wanted = expected(base, clips)
    command = ["--base", str(base), *COMMON, "--format", "kaldi"]
    assert main(["transcribe", str(data), *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [" ".join([f"x-{n}", *wanted[n].split()]) for n in names]
    manifest = tmp_path / "some.jsonl"
    manifest.write_text(json.dumps({"id": "m1", "audio": str(clips / "c.wav")}) + "\n")
    assert main(["transcribe", str(manifest), str(clips / "a.wav"), *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "m1"]


def test_each_utterance_has_its_own_route(base, adapter, clips, tmp_path, capsys):
    rows = [("a", "be"), ("b", "none"), ("c", "be")]
    manifest = tmp_path / "some.jsonl"
    audio = {name: str(clips / f"{name}.wav") for name, _ in rows}
    lines = [
        json.dumps({"id": n, "audio": audio[n], "utt2route": route}) + "\n" for n, route in rows
    ]
    manifest.write_text("".join(lines))
    command = ["transcribe", str(manifest), "--base", str(base), "--adapter", str(adapter)]
    command += [*COMMON, "--context", "0.5", "--format", "json"]

    def texts(*more):
        assert main([*command, *more]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return {line["id"]: line["text"] for line in lines}

    adapted, frozen = texts("--route", "be"), texts("--route", "none")
    assert adapted["b"] != frozen["b"]
    assert texts("--routes", "utt2route") == {**adapted, "b": frozen["b"]}
    for more, message in (
        (["--routes", "utt2route", "--route", "be"], "give one of them"),
        (["--routes", "utt2x"], "utt2x is None"),
        (["--routes", "id"], "no adapter 'a'"),
        (["--routes", "utt2route"], "is no data dir"),
    ):
        if "no data dir" in message:
            command.insert(1, str(clips.parent / "d.wav"))
            (clips / "a.wav").rename(clips.parent / "d.wav")
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err


def test_each_utterance_has_its_own_language_unless_one_is_asked_for(base, clips, tmp_path, capsys):
    manifest = tmp_path / "some.jsonl"
    rows = [{"id": "1", "language": "haw"}, {"id": "2", "language": "Romanian"}, {"id": "3"}]
    audio = str(clips / "a.wav")
    manifest.write_text("".join(json.dumps({"audio": audio, **row}) + "\n" for row in rows))
    command = ["transcribe", str(manifest), "--base", str(base), *COMMON[:3], "--format", "json"]

    def languages(*more):
        assert main([*command, *more]) == 0
        return [json.loads(line)["language"] for line in capsys.readouterr().out.splitlines()]

    assert languages()[:2] == ["haw", "ro"]
    assert languages("--language", "be") == ["be"] * 3


def test_a_bad_file_stops_the_command_but_nothing_finished_is_lost(base, clips, tmp_path, capsys):
    (clips / "bad.wav").write_bytes(b"RIFF nonsense")
    out = tmp_path / "text"
    command = ["transcribe", str(clips), "--base", str(base), *COMMON]
    command += ["--format", "kaldi", "--out", str(out)]
    assert main(command) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("speechadapt: ") and "bad.wav" in last
    assert [line.split()[0] for line in out.read_text("utf-8").splitlines()] == ["a", "b"]


def test_skip_bad_goes_on_and_counts(base, clips, tmp_path, capsys):
    (clips / "bad.wav").write_bytes(b"RIFF nonsense")
    (clips / "empty.flac").write_bytes(b"")
    command = ["transcribe", str(clips), "--base", str(base), *COMMON, "--skip-bad"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["a", "b", "c"]
    assert "bad.wav" in err and "empty.flac" in err
    assert "2 of 5 recordings left out as bad" in err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--route", "ro"], "no adapter 'ro'"),
        (["--route", "avg(a,b)"], "cannot be used"),
        (["--route", "be+ro"], "no adapter 'be'"),
        (["--route", "be+be"], "each once"),
        (["--language", "xx"], "'xx' is unknown"),
        (["--beam", "0"], "beam size 0"),
        (["--context", "-1"], "--context '-1'"),
        (["--context", "long"], "--context 'long'"),
        (["--batch-seconds", "0"], "batch_seconds 0"),
        (["--batch-seconds", "nan"], "batch_seconds nan"),
        (["--format", "srt"], "cannot share one srt file"),
        (["--adapter", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_one_sentence(base, clips, capsys, extra, message):
    command = ["transcribe", str(clips), "--base", str(base), *COMMON]
    assert main([*command, *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("speechadapt: ") and message in error


def test_inputs(clips, tmp_path):
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    samples = np.zeros(1600, np.float32)
    soundfile.write(other / "a.wav", samples, 16_000)
    soundfile.write(other / "a.flac", samples, 16_000)
    soundfile.write(other / "two words.wav", samples, 16_000)
    names = [u.id for u in find_recordings([str(clips / "a.wav"), str(tmp_path / "other")])]
    assert names == ["clips-a", "other-deep-a.flac", "other-deep-a.wav", "two_words"]
    with pytest.raises(AudioError, match="no such file"):
        find_recordings([str(tmp_path / "missing.wav")])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(AudioError, match="no audio file"):
        find_recordings([str(tmp_path / "nothing")])
    with pytest.raises(ConfigError, match="named twice"):
        find_recordings([str(clips / "a.wav"), str(clips / "a.wav")])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["transcribe", "--help"])
    shown = capsys.readouterr().out
    assert "examples:" in shown and "--skip-bad" in shown


def test_as_a_process(base, clips):
    command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe"]
    done = subprocess.run(
        [*command, str(clips / "none.wav"), "--base", str(base)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.wav" in done.stderr and "Traceback" not in done.stderr
