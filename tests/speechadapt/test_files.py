"""Whole or not at all, whatever happens in between."""

import pytest

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
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.mkdir()
        raise ZeroDivisionError
    assert listing(path) == ["one"]
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "two").write_text("2")
    assert listing(path) == ["two"]
    assert listing(tmp_path) == ["d"]


def test_what_a_kill_between_the_renames_left_is_put_right(tmp_path):
    """The old folder had been moved aside, the new one was not in place yet."""
    (tmp_path / ".d.old").mkdir()
    (tmp_path / ".d.old" / "one").write_text("1")
    (tmp_path / ".d.tmp").mkdir()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "d"):
        raise ZeroDivisionError
    assert listing(tmp_path) == ["d"]
    assert listing(tmp_path / "d") == ["one"]


def test_json_is_stable_and_readable(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": "Жаба", "a": 1})
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n  "a": 1,\n  "b": "Жаба"\n}\n'


def test_remove_takes_files_folders_and_nothing(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    remove(tmp_path / "d")
    remove(tmp_path / "d")
    assert listing(tmp_path) == []
