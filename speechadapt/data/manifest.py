"""JSONL manifests: one utterance a line, with the fields of :class:`Utterance`; fields called
``utt2…`` are labels (:mod:`speechadapt.data.labels`)."""

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
        DataError: The file is missing or empty, a line is no JSON, lacks ``id`` or ``audio``, has
            an unknown field or a value of the wrong kind, or an id is there twice.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    seen: dict[str, Utterance] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            utterance = _parse(line, f"{path}:{number}", path.parent)
            if utterance.id in seen:
                raise DataError(
                    f"{path}:{number}: {utterance.id} is there twice; ids must be unique"
                )
            seen[utterance.id] = utterance
    if not seen:
        raise DataError(f"{path}: has no utterances; prepare it again")
    return list(seen.values())


def _parse(line: bytes, where: str, folder: Path) -> Utterance:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte {line[error.start]:#04x}); convert it with iconv"
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: no JSON ({error}); give one object a line") from error
    if not isinstance(row, dict) or not all(_filled(row.get(name)) for name in ("id", "audio")):
        raise DataError(f'{where}: expected an object with at least "id" and "audio"')
    known = [field.name for field in fields(Utterance)]
    # Labels are called as Kaldi's tables are; who trains on them reads them.
    row = {name: value for name, value in row.items() if not name.startswith("utt2")}
    if unknown := sorted(set(row) - set(known)):
        raise DataError(
            f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}, and labels utt2…"
        )
    for name, value in row.items():
        if value is None:
            continue
        if name not in _NUMBERS:
            if not isinstance(value, str):
                raise DataError(f"{where}: {name} is {value!r}, expected a string")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise DataError(f"{where}: {name} is {value!r}, expected seconds")
        else:
            row[name] = float(value)
    if row["id"].split() != [row["id"]]:
        raise DataError(f"{where}: the id {row['id']!r} has white space; use another character")
    if row.get("end") is not None and row["end"] <= (row.get("start") or 0.0):
        raise DataError(f"{where}: {row['id']} ends before it starts; correct its times")
    if row.get("duration") == 0:
        raise DataError(f"{where}: {row['id']} lasts 0 s; remove it")
    if not row["audio"].rstrip().endswith("|"):
        row["audio"] = str(folder / row["audio"])
    return Utterance(**row)


def _filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all; paths become absolute, unknown fields are left out.

    Raises:
        DataError: No utterance, an id twice, or one that would not be read again.
    """
    path = Path(path)
    rows: dict[str, str] = {}
    for utterance in utterances:
        row = {key: value for key, value in asdict(utterance).items() if value is not None}
        if utterance.audio and not utterance.audio.rstrip().endswith("|"):
            row["audio"] = str(Path(utterance.audio).absolute())
        if utterance.id in rows:
            raise DataError(f"{path}: {utterance.id} would be there twice; ids must be unique")
        rows[utterance.id] = json.dumps(row, ensure_ascii=False)
        _parse(rows[utterance.id].encode(), f"{path}:{len(rows)}", path.parent)
    if not rows:
        raise DataError(f"{path}: no utterances to write")
    write_text(path, "".join(row + "\n" for row in rows.values()))
