"""Where a base is found: a folder, the hub's cache, the hub."""

import shutil
import socket
import time

import pytest
import torch
from hub_server import fake_hub
from huggingface_hub import constants as hub
from whisper_files import logits, tiny_whisper, write_transformers

from speechadapt import hub as our_hub
from speechadapt.backbones.checkpoints import load_whisper
from speechadapt.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("no_caches")


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


@pytest.fixture
def folder(original, tmp_path):
    """A good folder that a test may damage."""
    return write_transformers(tmp_path / "model", original)


@pytest.mark.parametrize("name", ["", "whisper", "no/such/folder", "a b/c", "/nowhere", "../x"])
def test_names_that_can_be_nothing(name):
    with pytest.raises(CheckpointError):
        load_whisper(name, offline=True)


def test_a_file_is_no_folder(folder):
    with pytest.raises(CheckpointError, match="give the folder"):
        load_whisper(folder / "model.safetensors")


def test_offline_asks_nobody():
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="not asked") as caught:
        load_whisper("someone/whisper", offline=True)
    assert time.monotonic() - start < 1
    assert "give a folder" in str(caught.value)


def test_hub_offline_of_the_environment_is_respected(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        load_whisper("someone/whisper")


def test_an_unreachable_hub_costs_seconds():
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="cannot be reached"):
        load_whisper("someone/whisper")
    assert time.monotonic() - start < 5


def test_a_silent_hub_costs_seconds(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(our_hub, "HUB_SECONDS", 0.3)
        start = time.monotonic()
        with pytest.raises(CheckpointError, match=r"did not answer|cannot be reached"):
            load_whisper("someone/whisper")
        assert time.monotonic() - start < 3


def cache(folder, tmp_path, files=None):
    """Put a model into the hub's local cache, as a download does."""
    repository = tmp_path / "hub" / "models--someone--whisper"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        if files is None or file.name in files:
            shutil.copy(file, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_the_local_hub_cache_is_taken_without_asking(folder, original, tmp_path, capsys):
    cache(folder, tmp_path)
    loaded = load_whisper("someone/whisper")
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.name == "someone/whisper"
    assert "local hub cache" in loaded.source
    assert "local hub cache" in capsys.readouterr().err


def test_half_a_model_in_the_cache_does_not_count(folder, tmp_path):
    cache(folder, tmp_path, files=("config.json", "tokenizer.json"))
    with pytest.raises(CheckpointError, match="cannot be reached"):
        load_whisper("someone/whisper")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub on this machine."""
    with fake_hub(monkeypatch, tmp_path / "hub") as made:
        yield made


def put(server, folder):
    """The tiny model, as someone/whisper."""
    server.add("someone/whisper", {path.name: path.read_bytes() for path in folder.iterdir()})


def downloaded(server):
    """Names of the files that somebody took."""
    return {path.rsplit("/", 1)[1] for path in server.requests if "/resolve/" in path}


def test_download_from_a_hub_takes_no_pickles_and_is_cached(server, folder, original):
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "tf_model.h5").write_bytes(b"other")
    put(server, folder)
    loaded = load_whisper("someone/whisper")
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.source.startswith("the hub (")
    assert "model.safetensors" in downloaded(server)
    assert not {"pytorch_model.bin", "tf_model.h5"} & downloaded(server)
    server.requests.clear()
    assert "local hub cache" in load_whisper("someone/whisper").source
    assert not server.requests


def test_a_name_the_hub_does_not_know(server):
    with pytest.raises(CheckpointError, match="no such repository"):
        load_whisper("someone/else")


def test_a_repository_with_pickles_only(server, folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    put(server, folder)
    with pytest.raises(CheckpointError, match="lacks safetensors"):
        load_whisper("someone/whisper")
    assert "pytorch_model.bin" not in downloaded(server)
