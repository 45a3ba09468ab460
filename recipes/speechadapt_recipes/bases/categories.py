"""Data directories whose utterances have labels: the table ``utt2category``, labels with blanks
between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt.data.labels import read_labels

TABLE = "utt2category"


def write_categories(
    folder: Path, utterances: Sequence[Utterance], labels: Mapping[str, Iterable[str]], licence: str
) -> Counter[str]:
    """Write a data directory with labels; returns how many utterances have each.

    Args:
        folder: Replaced if it is there.
        utterances: At least one.
        labels: By utterance.
        licence: Content of the LICENCE file.

    Raises:
        DataError: Whatever :func:`speechadapt.data.write_data_dir` refuses.
    """
    chosen = sorted((u.id for u in utterances), key=str.encode)
    lines = [" ".join([name, *sorted(labels[name])]) for name in chosen]
    table = "".join(f"{line}\n" for line in lines)
    write_data_dir(folder, utterances, {TABLE: table, "LICENCE": licence})
    return Counter(label for name in chosen for label in labels[name])


def read_categories(folder: Path) -> dict[str, tuple[str, ...]]:
    """Labels by utterance.

    Raises:
        DataError: The directory breaks its format, or has no such table.
    """
    return read_labels(folder, TABLE, read_data_dir(folder))
