"""Readers of transcripts: Kaldi's files and data directories, ``utts.jsonl``, and sclite's trn.

Lines end at a line feed only: other characters that Unicode counts as line ends occur in texts.
"""

from __future__ import annotations

import json
import math
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


@dataclass(frozen=True)
class Side:
    """The references or the hypotheses of a test set.

    Attributes:
        texts: Utterance id to text, raw.
        languages: Utterance id to language, of the utterances that name one.
        fields: Utterance id to what else is known of it (speaker, duration, snr, ...).
    """

    texts: dict[str, str]
    languages: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_kaldi_text(path: Path) -> dict[str, str]:
    """Read a Kaldi ``text`` file: an utterance id, white space, the words (there may be none).

    Raises:
        EvalError: The file or a line cannot be read, or an id occurs twice (file and line named).
    """
    texts: dict[str, str] = {}
    for where, line in numbered_lines(path):
        name, _, text = line.replace("\t", " ").partition(" ")
        _add(texts, name, text.strip(" "), where)
    return texts


def read_utt2spk(path: Path) -> dict[str, str]:
    """Read a Kaldi ``utt2spk`` file: an utterance id and a speaker on each line.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line that has not two fields.
    """
    return read_table(path, "speaker")


def read_table(path: Path, what: str) -> dict[str, str]:
    """Read a Kaldi table such as ``utt2lang``: an utterance id and one value on each line.

    Args:
        path: The file.
        what: Name of the value, for errors.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line that has not two fields.
    """
    table: dict[str, str] = {}
    for where, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 2:
            raise EvalError(f"{where}: {len(fields)} fields instead of utterance id and {what}")
        _add(table, fields[0], fields[1], where)
    return table


def read_field(path: Path, name: str) -> dict[str, float | str]:
    """Read a table such as ``utt2dur`` as ``read_table`` does; values that are numbers are one."""
    return {key: _number(value) for key, value in read_table(path, name).items()}


def read_trn(path: Path) -> dict[str, str]:
    """Read sclite's trn: the words, then the utterance id in round brackets; ``;;`` is a comment.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line without id, or with alternatives in braces.
    """
    texts: dict[str, str] = {}
    for where, line in numbered_lines(path, starts_with_id=False):
        if line.startswith(";;"):
            continue
        text, bracket, name = line.rstrip().removesuffix(")").rpartition("(")
        name = name.strip()
        if not bracket or not line.rstrip().endswith(")") or not name or len(name.split()) > 1:
            raise EvalError(f"{where}: no utterance id in round brackets at the end of the line")
        if "{" in text.split():
            raise EvalError(
                f"{where}: alternatives in braces are not read; write the words that were said"
            )
        _add(texts, name, text.strip(" \t"), where)
    if not texts:
        raise EvalError(f"{path} holds comments only: expected one utterance a line")
    return texts


def read_utts(path: Path) -> dict[str, Row]:
    """Read ``utts.jsonl``: one JSON object a line with ``id`` and whichever other fields it has.

    Raises:
        EvalError: As ``read_kaldi_text``, or a line that is no such object.
    """
    rows: dict[str, Row] = {}
    for where, line in numbered_lines(path):
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


def read_side(path: Path, column: str) -> Side:
    """Read the texts of one side and what is known of the utterances.

    Args:
        path: A ``.jsonl`` file; a ``.trn`` file, whose ids are ``speaker-utterance``; a Kaldi data
            directory, with its ``utt2spk``, ``utt2lang`` and ``utt2dur`` if there are any; or any
            other file as Kaldi's ``text``.
        column: ``ref`` or ``hyp`` of a ``.jsonl`` file; the others have one text.

    Raises:
        EvalError: A file is damaged, or an utterance has no such column.
    """
    if path.is_dir():
        return _read_data_dir(path)
    if path.suffix == ".trn":
        texts = read_trn(path)
        if any("-" not in name for name in texts):  # not all ids say who speaks
            return Side(texts)
        return Side(texts, {}, {name: {"speaker": name.partition("-")[0]} for name in texts})
    if path.suffix != ".jsonl":
        return Side(read_kaldi_text(path))
    side = Side({})
    for name, row in read_utts(path).items():
        text = getattr(row, column)
        if text is None:
            raise EvalError(f"{path}: utterance {name!r} has no {column!r}")
        side.texts[name] = text
        side.fields[name] = row.fields
        if row.lang:
            side.languages[name] = row.lang
    return side


def read_texts(path: Path, column: str) -> dict[str, str]:
    """Read the texts of one side, as ``read_side`` does."""
    return read_side(path, column).texts


def _read_data_dir(folder: Path) -> Side:
    side = Side(read_kaldi_text(folder / "text"))
    if (path := folder / "utt2spk").is_file():
        side.fields.update({name: {"speaker": who} for name, who in read_utt2spk(path).items()})
    if (path := folder / "utt2dur").is_file():
        for name, value in read_field(path, "duration").items():
            side.fields.setdefault(name, {})["duration"] = value
    if (path := folder / "utt2lang").is_file():
        side.languages.update(read_table(path, "language"))
    return side


def numbered_lines(path: Path, *, starts_with_id: bool = True) -> Iterator[tuple[str, str]]:
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
        blank = not line.strip(" \t")
        if blank or (starts_with_id and line[0] in " \t"):
            what = "empty line" if blank else "line begins with white space"
            raise EvalError(f"{where}: {what}, so there is no utterance id")
        yield where, line


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


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
