"""Writers of results: a file appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError


def as_json(value: Any) -> str:
    """JSON that people can read; numbers that JSON has not (NaN, infinity) are null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    """Write ``as_json(value)`` and a line end.

    Raises:
        EvalError: The file cannot be written.
    """
    write_text(path, as_json(value) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line; numbers that JSON has not (NaN, infinity) are null.

    Raises:
        EvalError: The file cannot be written.
    """
    write_text(path, "".join(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with commas; NaN and None are empty cells.

    Raises:
        EvalError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell != cell else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it; missing folders are made.

    Raises:
        EvalError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, which a file name may hold, is no character that UTF-8 can write.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise EvalError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
