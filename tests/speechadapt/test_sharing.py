"""Adapters on the hub: its real client against a hub on this machine."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import fake_hub
from huggingface_hub import constants as hub
from tiny_decoding import write_base

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of
from speechadapt.cli.main import main
from speechadapt.errors import AdapterError, FetchError
from speechadapt.sharing import find_adapter, front_matter, pull, push
from speechadapt.store import load_adapter, save_adapter

FILES = ("speechadapt.json", "adapter.safetensors", "README.md")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub, with an empty cache and a token that may write."""
    with fake_hub(monkeypatch, tmp_path / "cache") as made:
        monkeypatch.setenv("HF_TOKEN", made.token)
        yield made


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def backbone(base):
    return speechadapt.load(base).backbone


@pytest.fixture
def folder(backbone, tmp_path) -> Path:
    """An adapter, and a file beside it that is nobody's business."""
    config = LoraConfig(rank=2)
    info = AdapterInfo(
        language="be", base="openai/whisper-tiny", fingerprint=backbone.fingerprint, licence="CC0"
    )
    sites = backbone.sites.values()
    save_adapter(Adapter.fresh("be", config, family_of(config), sites, info, 1), tmp_path / "be")
    (tmp_path / "be" / "notes.txt").write_text("private")
    return tmp_path / "be"


def contents(folder):
    return {file: (folder / file).read_bytes() for file in FILES}


def test_there_and_back(server, folder, backbone, tmp_path):
    url = push(folder, "somebody/be", licence="cc0-1.0")
    assert url.startswith(f"{server.endpoint}/somebody/be/commit/")
    message, files = server.commits["somebody/be"][-1]
    assert message == "Adapter be" and set(files) == {*FILES, ".gitattributes"}
    assert not server.private
    before = contents(folder)
    assert {name: files[name] for name in FILES[:2]} == {name: before[name] for name in FILES[:2]}
    card = files["README.md"].decode()
    assert card.endswith(before["README.md"].decode())
    assert yaml.safe_load(card.split("---")[1]) == {
        "library_name": "speechadapt",
        "base_model": "openai/whisper-tiny",
        "base_model_relation": "adapter",
        "language": ["be"],
        "license": "cc0-1.0",
        "tags": ["speechadapt", "lora", "language"],
    }
    commit = pull("somebody/be", tmp_path / "new" / "be")
    assert url.endswith(commit)
    assert sorted(path.name for path in (tmp_path / "new" / "be").iterdir()) == sorted(FILES)
    theirs = dict(load_adapter(folder, backbone).named_tensors())
    for key, tensor in load_adapter(tmp_path / "new" / "be", backbone).named_tensors():
        assert torch.equal(tensor, theirs[key])
    push(tmp_path / "new" / "be", "somebody/be")  # its card has front matter already
    assert server.commits["somebody/be"][-1][1]["README.md"].decode().count("---\n") == 2


def test_the_front_matter_of_a_card():
    description = {"config": {"method": "mms"}, "info": {"base": "/models/x", "language": "no"}}
    text = front_matter(description)
    assert yaml.safe_load(text.split("---")[1])["language"] == ["no"]  # Norwegian is not False
    assert "base_model" not in text and "license" not in text


def test_a_revision(server, folder, tmp_path):
    old = server.add("somebody/be", contents(folder))
    server.add("somebody/be", {"README.md": b"newer"})
    for name, card in (
        ("somebody/be", b"newer"),
        ("somebody/be@v1", (folder / "README.md").read_bytes()),
        (f"somebody/be@{old}", (folder / "README.md").read_bytes()),
    ):
        pull(name, tmp_path / "out")
        assert (tmp_path / "out" / "README.md").read_bytes() == card
    with pytest.raises(FetchError, match="no branch, tag or commit 'v9'"):
        pull("somebody/be@v9", tmp_path / "out")


def test_loading_by_name(server, folder, base, capsys):
    """From the hub once, then from the cache, which is asked first."""
    server.add("somebody/be", contents(folder))
    assert speechadapt.load(base, adapters=["somebody/be"]).bank["be"].config.rank == 2
    assert "somebody/be: adapter from the hub (" in capsys.readouterr().err
    server.requests.clear()
    for offline in (False, True):
        speechadapt.load(base, adapters=["somebody/be"], offline=offline)
        assert "adapter from the local hub cache" in capsys.readouterr().err
    assert not server.requests
    with pytest.raises(FetchError, match="neither a folder nor in the local hub cache"):
        find_adapter("somebody/ro", offline=True)
    assert find_adapter(folder) == folder


def test_offline_by_the_environment(server, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FetchError, match=r"no folder here, and not from the hub: .*HF_HUB_OFFLINE is set"
    ):
        find_adapter("somebody/be")
    assert not server.requests


def test_a_private_repository(server, folder, tmp_path, monkeypatch):
    push(folder, "somebody/secret", private=True, message="240 steps")
    assert server.private == {"somebody/secret"}
    assert server.commits["somebody/secret"][-1][0] == "240 steps"
    pull("somebody/secret", tmp_path / "mine")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FetchError, match=r"no such repository, or a private one.*hf auth login"):
        pull("somebody/secret", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_token(server, folder, tmp_path, monkeypatch):
    server.add("somebody/be", contents(folder))
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(FetchError, match="does not accept your token"):
        push(folder, "somebody/new")
    assert "somebody/new" not in server.commits
    with pytest.raises(FetchError, match="does not accept your token"):
        pull("somebody/be", tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"../evil.txt": b"x"}, r"'../evil.txt' climbs out"),
        ({"/etc/passwd": b"x"}, "climbs out"),
        ({"a/../../evil": b"x"}, "climbs out"),
        ({"pytorch_adapter.bin": b"x"}, "holds pytorch_adapter.bin, a pickle"),
        ({"speechadapt.json": b"{"}, "not readable as JSON"),
        ({"adapter.safetensors": b"short"}, "not a whole safetensors file"),
    ],
)
def test_what_a_repository_must_not_hold(server, folder, tmp_path, files, words):
    server.add("somebody/be", {**contents(folder), **files})
    with pytest.raises(AdapterError, match=words):
        pull("somebody/be", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not any("evil" in path.name for path in tmp_path.rglob("*"))


def test_something_else(server, tmp_path):
    server.add("somebody/model", {"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(AdapterError, match=r"has no speechadapt\.json, so it is no adapter"):
        pull("somebody/model", tmp_path / "out")
    for name in ("nobody", "a/b/c", "../x"):
        with pytest.raises(FetchError, match="expected owner/name"):
            pull(name, tmp_path / "out")


def test_an_interrupted_download_goes_on(server, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("older adapter")
    server.add("somebody/be", contents(folder))
    server.break_after = 1000
    with pytest.raises(FetchError, match="somebody/be: the hub, or the way to it, failed"):
        pull("somebody/be", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    server.break_after, server.broken = None, False
    pull("somebody/be", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


def test_a_half_cached_adapter_is_not_taken_for_a_whole_one(server, folder):
    server.add("somebody/be", contents(folder))
    cached = find_adapter("somebody/be")
    (cached / "adapter.safetensors").unlink()
    assert (find_adapter("somebody/be") / "adapter.safetensors").is_file()


def test_only_whole_adapters_are_pushed(server, folder, tmp_path):
    (folder / "adapter.safetensors").write_bytes(b"cut")
    with pytest.raises(AdapterError, match="not a whole safetensors"):
        push(folder, "somebody/be")
    with pytest.raises(AdapterError, match="no adapter folder"):
        push(tmp_path, "somebody/be")
    assert not server.requests


def test_commands(server, folder, base, capsys, tmp_path):
    arguments = ["--private", "--message", "first"]
    assert main(["adapters", "push", str(folder), "somebody/be", *arguments]) == 0
    assert "pushed to http" in capsys.readouterr().out
    assert main(["adapters", "pull", "somebody/be", "--out", str(tmp_path / "out")]) == 0
    assert "somebody/be: commit " in capsys.readouterr().out
    assert main(["adapters", "info", str(tmp_path / "out"), "--base", str(base)]) == 0
    name = json.loads((tmp_path / "out" / "speechadapt.json").read_text())["name"]
    assert f"# Adapter `{name}`" in capsys.readouterr().out
    assert main(["adapters", "pull", "somebody/else", "--out", str(tmp_path / "no")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("speechadapt: somebody/else: the hub has no such repository")
