"""Labels and values of utterances: a table of a data directory, a field of a manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechadapt.data.kaldi import read_table, same_ids
from speechadapt.data.utterance import Utterance
from speechadapt.errors import DataError

_KNOWN = {"utt2lang": "language", "utt2spk": "speaker"}  # fields every utterance has anyway


def read_labels(
    path: str | Path, name: str, utterances: Sequence[Utterance]
) -> dict[str, tuple[str, ...]]:
    """Labels of each utterance of a data set.

    Args:
        path: Kaldi data directory with a table of that name, one line ``utterance label …`` for
            each; or a JSONL manifest with a field of that name: a string of labels, a list of
            them, or a number.
        name: Such as ``utt2lang``, ``utt2category`` or ``utt2mos``.
        utterances: Of that data set.

    Raises:
        DataError: There is no such table or field, or it does not speak of each utterance.
    """
    path = Path(path)
    if path.is_dir():
        table = path / name
        if not table.is_file():
            raise DataError(
                f"{table}: missing; write a line with the id and its label for each utterance"
            )
        rows = read_table(table, empty_values=True)
        same_ids(table, rows, {utterance.id: None for utterance in utterances})
        return {key: tuple(value.split()) for key, value in rows.items()}
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    return {
        utterance.id: _labels(json.loads(line), name, f"{path}: {utterance.id}")
        for utterance, line in zip(utterances, lines, strict=True)
    }


def _labels(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name, row.get(_KNOWN.get(name, name)))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (str(value),)
    if isinstance(value, list) and all(isinstance(label, str) and label for label in value):
        return tuple(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {value!r}, expected a label, a list of them, a number")
    return tuple(value.split())


def number(labels: Sequence[str], where: str) -> float:
    """What a table says as a number.

    Raises:
        DataError: It is none, or there are several.
    """
    try:
        (text,) = labels
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {' '.join(labels) or 'nothing'!r} is no number; give one")
    return value
