"""Utterances, the formats they are read from, and batches."""

from __future__ import annotations

from pathlib import Path

from speechadapt.data.kaldi import read_data_dir, write_data_dir
from speechadapt.data.manifest import read_manifest, write_manifest
from speechadapt.data.utterance import Utterance
from speechadapt.errors import DataError

__all__ = [
    "Utterance",
    "load_utterances",
    "read_data_dir",
    "read_manifest",
    "write_data_dir",
    "write_manifest",
]


def load_utterances(path: str | Path) -> list[Utterance]:
    """Read a Kaldi data directory or a JSONL manifest, whichever ``path`` is.

    Raises:
        DataError: It is neither, or breaks its format.
    """
    path = Path(path)
    if path.is_dir():
        return read_data_dir(path)
    if path.is_file():
        return read_manifest(path)
    raise DataError(f"{path}: no such Kaldi data directory or JSONL manifest; check the path")
