"""What was computed before, by content: never twice for the same system, sound and language."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from speechadapt_eval.errors import EvalError

FILE = "cache.sqlite"


class Cache:
    """A table of JSON objects in one SQLite file; an entry is there whole or not at all.

    Several processes may use it. An entry can be overwritten, never changed in part; killing the
    process loses what was not stored yet, nothing else.

    Args:
        folder: Where the file is, or is made.

    Raises:
        EvalError: It cannot be opened, or is no such file.
    """

    def __init__(self, folder: Path):
        self._path = folder / FILE
        with _told(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._table = sqlite3.connect(self._path, timeout=60)
            # A write-ahead log: no wait for the disk after each entry, and never a broken file.
            self._table.execute("PRAGMA journal_mode = WAL")
            self._table.execute("PRAGMA synchronous = NORMAL")
            self._table.execute("CREATE TABLE IF NOT EXISTS entries (key PRIMARY KEY, value)")

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._table.close()

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a key, if there is one."""
        with _told(self._path):
            row = self._table.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            return None if row is None else json.loads(row[0])

    def put(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Store entries, all of them or none."""
        rows = [(key, json.dumps(value)) for key, value in entries.items()]
        with _told(self._path), self._table:
            self._table.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        raise EvalError(
            f"cannot use {path}: {error}; remove it to compute everything again, or choose "
            "another --cache"
        ) from error
