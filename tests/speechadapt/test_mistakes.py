"""Mistakes on the command line: one sentence, exit code 2, and nothing is lost or half done."""

import pytest
from tones import command, write_base, write_tones

LABELS = ("--objective", "classify", "--labels", "utt2pitch", "--adapter", "head", "--steps", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Tones, and a tiny base."""
    folder = tmp_path_factory.mktemp("home")
    write_tones(folder)
    write_base(folder / "base", "wav2vec2")
    return folder


@pytest.fixture
def refused(home, capsys):
    """Runs a command that must fail, and gives the sentence."""

    def refuse(name, *options):
        inputs = (
            (home / "data",) if name in ("transcribe", "classify") else ("--data", home / "data")
        )
        assert command(name, *inputs, "--base", home / "base", *options) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("speechadapt: ")
        return said

    return refuse


def test_where_nothing_can_be_written(home, refused, tmp_path):
    below = tmp_path / "file" / "below"
    (tmp_path / "file").write_text("old")
    for name in ("train", "finetune"):
        for out in (tmp_path / "file", below):
            assert "file is a file, so nothing lies below" in refused(name, "--out", out)
    for out in (below, below / "a.txt", f"{below}/"):
        assert "file is a file, so nothing lies below" in refused("transcribe", "--out", out)
    (tmp_path / "text").mkdir()
    assert "text: is a folder and" in refused("transcribe", "--format", "kaldi", "--out", tmp_path)
    assert (tmp_path / "file").read_text() == "old"


def test_a_run_never_replaces_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("years of work")
    said = refused("train", "--out", tmp_path, *LABELS)
    assert "adapter: holds thesis.txt, which would be lost" in said
    assert (tmp_path / "adapter" / "thesis.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
