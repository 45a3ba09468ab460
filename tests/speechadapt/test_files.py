"""Whole or not at all, whatever happens in between."""

from pathlib import Path

import pytest

from speechadapt.errors import OutputError
from speechadapt.files import remove, replacing, write_json, write_text


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path):
    path = tmp_path / "d"
    with replacing(path, "*") as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
    with pytest.raises(ZeroDivisionError), replacing(path, "*") as temporary:
        temporary.mkdir()
        raise ZeroDivisionError
    assert listing(path) == ["one"]
    with replacing(path, "*") as temporary:
        temporary.mkdir()
        (temporary / "two").write_text("2")
    assert listing(path) == ["two"]
    assert listing(tmp_path) == ["d"]


def test_what_a_kill_between_the_renames_left_is_put_right(tmp_path):
    """The old folder had been moved aside, the new one was not in place yet."""
    (tmp_path / ".d.old").mkdir()
    (tmp_path / ".d.old" / "one").write_text("1")
    (tmp_path / ".d.tmp").mkdir()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "d", "*"):
        raise ZeroDivisionError
    assert listing(tmp_path) == ["d"]
    assert listing(tmp_path / "d") == ["one"]


def write_folder(path, *known):
    with replacing(path, *known) as temporary:
        temporary.mkdir()
        (temporary / "mark").write_text("new")


@pytest.mark.parametrize(
    ("held", "lost"),
    [
        (["thesis.txt"], "thesis.txt"),
        (["mark", "thesis.txt"], "thesis.txt"),
        (["mark", "chapters/part.1"], "chapters/part.1"),  # `*` is of one name
        (["part.1"], "part.1"),  # without the file that says whose folder it is
        ([".git/config"], ".git/config"),
    ],
)
def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path, held, lost):
    path = tmp_path / "d"
    for name in held:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("years of work")
    with pytest.raises(OutputError, match=f"holds {lost}, which would be lost"):
        write_folder(path, "mark", "part.*")
    assert sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) == sorted(
        held
    )


def test_an_empty_folder_and_one_of_ours_are_replaced(tmp_path):
    path = tmp_path / "d"
    path.mkdir()
    write_folder(path, "mark")
    for name in ("part.1", "deep/part.2"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("old")
    write_folder(path, "mark", "part.*", "deep/part.*")
    assert listing(path) == ["mark"] and (path / "mark").read_text() == "new"


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    write_folder(tmp_path / "link", "mark")
    write_text(tmp_path / "link" / "text", "a")
    assert (tmp_path / "link").is_symlink() and listing(tmp_path / "disk") == ["mark", "text"]


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deeper")
    for name in (".", "..", "/", "../..", str(tmp_path / "here")):
        with pytest.raises(OutputError, match="the folder you are in, or one around it"):
            write_folder(Path(name), "*")
        with pytest.raises(OutputError, match="is a folder and cannot be replaced by a file"):
            write_text(Path(name), "new")
    with pytest.raises(OutputError, match="is a file, and a folder is written"):
        write_folder(tmp_path / "file", "mark")
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b"):
        with pytest.raises(OutputError, match="file is a file, so nothing lies below it"):
            write_folder(path, "mark")
        with pytest.raises(OutputError, match="file is a file, so nothing lies below it"):
            write_text(path, "new")
    with pytest.raises(OutputError, match="no plain file"):
        write_text(Path("/dev/null"), "new")
    assert listing(tmp_path) == ["file", "here"] and (tmp_path / "file").read_text() == "old"


def test_json_is_stable_and_readable(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": "Жаба", "a": 1})
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "a": 1,\n  "b": "Жаба"\n}\n'


def test_remove_takes_files_folders_and_nothing(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    remove(tmp_path / "d")
    remove(tmp_path / "d")
    assert listing(tmp_path) == []
