"""JSONL manifests: one utterance a line, with the fields of :class:`Utterance`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from speechadapt.data.utterance import Utterance
from speechadapt.errors import DataError
from speechadapt.files import write_text

_NUMBERS = ("start", "end", "duration")


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read a manifest. Relative audio paths are relative to the manifest.

    Raises:
        DataError: The file is missing or empty, a line is no JSON, lacks ``id`` or ``audio``, has an
            unknown field or a value of the wrong kind, or an id is there twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    known = {field.name for field in fields(Utterance)}
    seen: dict[str, Utterance] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: no JSON ({error})") from error
        if not isinstance(row, dict) or not {"id", "audio"} <= set(row):
            raise DataError(f'{where}: expected an object with at least "id" and "audio"')
        if unknown := sorted(set(row) - known):
            raise DataError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        for name, value in row.items():
            kind = (int, float) if name in _NUMBERS else str
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise DataError(f"{where}: {name} is {value!r}, which is of the wrong kind")
        if row["id"] in seen:
            raise DataError(f"{where}: {row['id']} is there twice; ids must be unique")
        if not row["audio"].rstrip().endswith("|"):
            row["audio"] = str(path.parent / row["audio"])
        seen[row["id"]] = Utterance(**row)
    if not seen:
        raise DataError(f"{path}: has no utterances")
    return list(seen.values())


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all; unknown fields are left out."""
    rows = (
        {key: value for key, value in asdict(u).items() if value is not None} for u in utterances
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(Path(path), text)
