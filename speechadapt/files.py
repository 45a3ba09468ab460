"""Writing files and folders so that a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from speechadapt.errors import OutputError


@contextmanager
def replacing(path: Path, *known: str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there replaces ``path`` at the end.

    When the block raises, ``path`` stays as it was.

    Args:
        path: Of a file, or of a folder if there are ``known`` names.
        known: What an older folder may hold, as :func:`check_target` takes it.

    Raises:
        OutputError: What is there is not ours to replace.
    """
    check_target(path, *known)
    path = path.resolve()  # also a name for `.`; what a link points to is replaced, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    remove(temporary)
    if aside.exists() and not path.exists():  # killed between the two renames below
        aside.rename(path)
    remove(aside)
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():  # a folder cannot be renamed over a full one
            path.rename(aside)
            temporary.rename(path)
            remove(aside)
        else:
            temporary.replace(path)
    finally:
        remove(temporary)


def check_target(path: Path, *known: str) -> None:
    """Refuse to replace what is not ours: a folder that holds anything else, or no plain file.

    Args:
        path: To be written.
        known: Names of what a folder of ours may hold, below it with slashes, ``*`` for any part of
            a name; the first is in every such folder. None = a file is written, not a folder.

    Raises:
        OutputError: Something else is there, or nothing can be written there.
    """
    check_place(path)
    if not path.exists():
        return
    if not known:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no plain file"
            raise OutputError(f"{path}: is {what} and cannot be replaced by a file; give another")
        return
    if not path.is_dir():
        raise OutputError(f"{path}: is a file, and a folder is written; give a new or empty one")
    here, place = Path.cwd(), path.resolve()
    if place in (here, *here.parents):
        raise OutputError(
            f"{path}: the folder you are in, or one around it, cannot be replaced; give a new one"
        )
    files = (p for p in place.rglob("*") if p.is_symlink() or not p.is_dir())
    ours = any(place.glob(known[0]))
    for file in files:
        name = file.relative_to(place).as_posix()
        if not ours or not any(
            fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
            for pattern in known
        ):
            raise OutputError(
                f"{path}: holds {name}, which would be lost; give a new or empty folder"
            )


def check_place(path: Path) -> None:
    """Refuse a path where nothing can be written, before work is spent on it.

    Raises:
        OutputError: It would lie below a file, or in a folder that may not be written to.
    """
    around = next((p for p in path.resolve().parents if p.exists()), Path("/"))
    if not around.is_dir():
        raise OutputError(f"{path}: {around} is a file, so nothing lies below it; give another")
    if not os.access(around, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: {around} may not be written to; give another place")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def remove(path: Path) -> None:
    """Delete a file or folder; nothing happens if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Bring the bytes to the disk before the rename makes them visible."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
