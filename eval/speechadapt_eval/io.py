"""Readers of transcripts: Kaldi ``text`` and ``utt2spk`` files, and ``utts.jsonl``.

Lines end at a line feed only: other characters that Unicode counts as line ends occur in texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from speechadapt_eval.errors import EvalError

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of ``utts.jsonl``.

    Attributes:
        id: Unique in the file.
        ref: Reference text, raw; None if the line has none.
        hyp: Hypothesis text, raw; None if the line has none.
        lang: Language, e.g. ``be``.
        fields: Every other field (duration, snr, speaker, ...), as read.
    """

    id: str
    ref: str | None = None
    hyp: str | None = None
    lang: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_kaldi_text(path: Path) -> dict[str, str]:
    """Read a Kaldi ``text`` file: an utterance id, white space, the words (there may be none).

    Raises:
        EvalError: The file or a line cannot be read, or an id occurs twice (file and line named).
    """
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        name, _, text = line.replace("\t", " ").partition(" ")
        _add(texts, name, text.strip(" "), where)
    return texts


def read_utt2spk(path: Path) -> dict[str, str]:
    """Read a Kaldi ``utt2spk`` file: an utterance id and a speaker on each line.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line that has not two fields.
    """
    speakers: dict[str, str] = {}
    for where, line in _lines(path):
        fields = line.split()
        if len(fields) != 2:
            raise EvalError(f"{where}: {len(fields)} fields instead of utterance id and speaker")
        _add(speakers, fields[0], fields[1], where)
    return speakers


def read_utts(path: Path) -> dict[str, Row]:
    """Read ``utts.jsonl``: one JSON object a line with ``id`` and whichever other fields it has.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line that is no such object.
    """
    rows: dict[str, Row] = {}
    for where, line in _lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvalError(f"{where}: not JSON ({error}); write one object a line") from error
        if "\\ud" in line.lower() and not _encodable(value):
            raise EvalError(f"{where}: half a surrogate pair (\\ud800 to \\udfff) is no character")
        if not isinstance(value, dict) or not isinstance(value.get("id"), str) or not value["id"]:
            raise EvalError(f"{where}: not an object with a text 'id'")
        for key in ("ref", "hyp", "lang"):
            if not isinstance(value.get(key), str | None):
                raise EvalError(f"{where}: {key!r} of {value['id']!r} is not a text")
        known = {key: value.pop(key, None) for key in ("id", "ref", "hyp", "lang")}
        _add(rows, known["id"], Row(**known, fields=value), where)
    return rows


def read_texts(path: Path, column: str) -> dict[str, str]:
    """Read the texts of one side: a column of a ``.jsonl`` file, or any other file as Kaldi's.

    Args:
        path: The file.
        column: ``ref`` or ``hyp``; ignored for Kaldi files, which have one text.

    Raises:
        EvalError: The file is damaged, or an utterance has no such column.
    """
    if path.suffix != ".jsonl":
        return read_kaldi_text(path)
    texts: dict[str, str] = {}
    for name, row in read_utts(path).items():
        text = getattr(row, column)
        if text is None:
            raise EvalError(f"{path}: utterance {name!r} has no {column!r}")
        texts[name] = text
    return texts


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(file:line, line)``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvalError(f"cannot read {path}: {error.strerror or error}") from error
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise EvalError(f"{path} is empty: expected one utterance a line")
    for number, raw in enumerate(lines, start=1):
        where = f"{path}:{number}"
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise EvalError(
                f"{where}: byte {error.start + 1} is not UTF-8; convert the file, e.g. with iconv"
            ) from error
        if not line or line[0] in " \t":
            what = "empty line" if not line.strip() else "line begins with white space"
            raise EvalError(f"{where}: {what}, so there is no utterance id")
        yield where, line


def _encodable(value: Any) -> bool:
    """Whether it can be written again: JSON may escape half a character, UTF-8 holds whole ones."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _add(table: dict[str, T], name: str, value: T, where: str) -> None:
    if name in table:
        raise EvalError(f"{where}: utterance {name!r} occurs a second time; ids must be unique")
    table[name] = value
