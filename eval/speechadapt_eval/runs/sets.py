"""Test sets: Kaldi data directories and ``.jsonl`` manifests.

A data directory has ``wav.scp``, and where there are such, ``segments``, ``text`` and tables called
``utt2…``, whose values become fields of the utterance (``utt2spk`` the speaker, ``utt2lang`` the
language, ``utt2dur`` the duration). A manifest has one object a line with ``id`` and ``audio``;
``ref`` (or ``text``) and ``lang`` (or ``language``) where known; every other field is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import Row, read_kaldi_text, read_utts
from speechadapt_eval.runs.clips import Clip
from speechadapt_eval.runs.folder import safe_name

_TABLES = {"utt2spk": "speaker", "utt2dur": "duration"}
_NAMED = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """An utterance of a test set.

    Attributes:
        clip: Its sound and language: what a system is given.
        ref: Reference text, raw; None if there is none.
        fields: Everything else that is known (speaker, duration, snr, ...).
    """

    clip: Clip
    ref: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """Utterances, in their order in the file.

    Attributes:
        name: Fit for a file name.
        path: Where it was read.
        items: At least one.
    """

    name: str
    path: str
    items: tuple[Item, ...]

    @property
    def language(self) -> str | None:
        """The language of all utterances; None if they differ or one is not known."""
        languages = {item.clip.lang for item in self.items}
        return languages.pop() if len(languages) == 1 else None


def read_sets(specs: Sequence[str], limit: int | None = None) -> list[DataSet]:
    """Read test sets, each ``PATH`` or ``NAME=PATH``.

    Args:
        specs: What the user gave.
        limit: Keep only so many utterances of each, the first ones.

    Raises:
        EvalError: One is missing or damaged, or two have one name.
    """
    sets: dict[str, DataSet] = {}
    for spec in specs:
        found = read_set(spec)
        if twin := sets.get(found.name.casefold()):
            raise EvalError(
                f"--set {spec}: {twin.path} is called {found.name!r} as well; "
                "give one another name, as NAME=PATH"
            )
        sets[found.name.casefold()] = replace(found, items=found.items[:limit])
    return list(sets.values())


def read_set(spec: str) -> DataSet:
    """Read a test set.

    Args:
        spec: ``PATH`` or ``NAME=PATH`` of a data directory or a ``.jsonl`` file. Without a name
            the folder's last two parts make one, ``be-test`` of ``data/be/test``, or the file's
            own name does.

    Raises:
        EvalError: It is missing or damaged: file, line and reason are named.
    """
    named = None if Path(spec).exists() else _NAMED.fullmatch(spec)
    path = Path(named[2] if named else spec)
    if path.is_dir():
        items = _read_directory(path)
    elif path.is_file() and path.suffix == ".jsonl":
        items = [_item(row, path) for row in read_utts(path).values()]
    else:
        what = "neither a data directory nor a .jsonl file" if path.exists() else "not there"
        raise EvalError(f"--set {spec}: {path} is {what}; give one that has audio and texts")
    if named and named[1] != safe_name(named[1]):
        raise EvalError(f"--set {spec}: use a name such as {safe_name(named[1])!r}")
    parts = [path.stem] if path.is_file() else path.absolute().parts[-2:]
    own = safe_name("-".join(part for part in parts if part not in ("/", "data")))
    return DataSet(named[1] if named else own, str(path), tuple(items))


def _read_directory(folder: Path) -> list[Item]:
    scp = folder / "wav.scp"
    if not scp.is_file():
        raise EvalError(f"{folder} has no wav.scp, so it is no data directory: prepare it first")
    recordings = read_kaldi_text(scp)
    if empty := [name for name, audio in recordings.items() if not audio]:
        raise EvalError(f"{scp}: {some(empty)} without a file or command")
    clips = {name: Clip(name, audio) for name, audio in recordings.items()}
    if (folder / "segments").is_file():
        clips = dict(_segments(folder / "segments", recordings))
    refs = _table(folder / "text", clips) if (folder / "text").is_file() else {}
    fields: dict[str, dict[str, Any]] = {name: {} for name in clips}
    for path in sorted(folder.glob("utt2*")):
        table = _table(path, clips)
        if path.name == "utt2lang":
            clips = {n: replace(clip, lang=table[n] or None) for n, clip in clips.items()}
            continue
        key = _TABLES.get(path.name, path.name.removeprefix("utt2"))
        for name, value in table.items():
            fields[name][key] = value if key == "speaker" else _value(value)
    return [Item(clip, refs.get(name), fields[name]) for name, clip in clips.items()]


def _segments(path: Path, recordings: dict[str, str]) -> Iterable[tuple[str, Clip]]:
    for name, line in read_kaldi_text(path).items():
        parts = line.split()
        times = [_number(part) for part in parts[1:]]
        if len(parts) != 3 or None in times:
            raise EvalError(f"{path}: {name!r} has {line!r} instead of recording, start, end")
        if parts[0] not in recordings:
            raise EvalError(f"{path}: {name!r} is of {parts[0]!r}, which wav.scp has not")
        start, end = times
        yield name, Clip(name, recordings[parts[0]], None, start, None if end == -1 else end)


def _table(path: Path, clips: dict[str, Clip]) -> dict[str, str]:
    """A table that speaks of each utterance; it may speak of others too."""
    table = read_kaldi_text(path)
    if missing := clips.keys() - table.keys():
        raise EvalError(
            f"{path}: {len(missing)} utterances of wav.scp or segments are missing "
            f"({some(missing)}); complete it, or take it away"
        )
    return {name: table[name] for name in clips}


def _item(row: Row, path: Path) -> Item:
    fields = dict(row.fields)
    where = f"{path}: utterance {row.id!r}"
    audio = fields.pop("audio", None)
    if not isinstance(audio, str) or not audio.strip():
        raise EvalError(f"{where} has no 'audio': give the path of its sound")
    ref, lang = (
        own if own is not None else fields.pop(other, None)
        for own, other in ((row.ref, "text"), (row.lang, "language"))
    )
    start, end = fields.pop("start", None), fields.pop("end", None)
    for name, value in (("text", ref), ("language", lang)):
        if not isinstance(value, str | None):
            raise EvalError(f"{where}: {name!r} is {value!r}, not a text")
    for name, value in (("start", start), ("end", end), ("duration", fields.get("duration"))):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise EvalError(f"{where}: {name!r} is {value!r}, not a number of seconds")
    if not audio.rstrip().endswith("|"):
        audio = str(path.parent / audio)
    return Item(Clip(row.id, audio, lang or None, start, end), ref, fields)


def _value(text: str) -> str | float | int:
    """A number where the text is one."""
    number = _number(text)
    if number is None:
        return text
    return int(text) if re.fullmatch(r"-?(0|[1-9]\d*)", text) else number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
