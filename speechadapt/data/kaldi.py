"""Kaldi data directories: wav.scp, segments, text, utt2spk, spk2utt, utt2lang, utt2dur.

Written so that Kaldi's ``validate_data_dir.sh`` accepts them; read with the same strictness,
because an unsorted or inconsistent directory silently pairs wrong things later.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from speechadapt.audio import audio_duration
from speechadapt.data.utterance import Utterance
from speechadapt.errors import DataError
from speechadapt.files import replacing

_TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2utt", "utt2lang", "utt2dur")

# Symbols of Kaldi's language models, which its validation greps for in whole lines.
_FORBIDDEN = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)", re.ASCII)


def read_data_dir(folder: str | Path, *, require_text: bool = False) -> list[Utterance]:
    """Read a data directory.

    Args:
        folder: Has wav.scp, and of segments, text, utt2spk, utt2lang, utt2dur what there is.
        require_text: Refuse a directory without transcripts.

    Returns:
        Utterances in the directory's order. One that is its own speaker has none: that is how
        Kaldi writes an unknown speaker.

    Raises:
        DataError: A file is missing, empty, unsorted, not UTF-8, has an id twice, or the files
            disagree about which utterances there are. The message names file and line.
    """
    folder = Path(folder)
    if not (folder / "wav.scp").is_file():
        raise DataError(f"{folder}: no wav.scp, so this is no Kaldi data directory")
    if require_text and not (folder / "text").is_file():
        raise DataError(f"{folder}: no text, so nothing says what was spoken; add the transcripts")
    recordings = read_table(folder / "wav.scp")
    _check_commands(folder / "wav.scp", recordings)
    places: dict[str, tuple[str, float | None, float | None]]
    if (folder / "segments").is_file():
        places = _read_segments(folder / "segments", recordings)
    else:
        places = {name: (audio, None, None) for name, audio in recordings.items()}
    tables = {
        name: read_table(folder / name, empty_values=name == "text")
        for name in ("text", "utt2spk", "utt2lang", "utt2dur")
        if (folder / name).is_file()
    }
    for name, table in tables.items():
        same_ids(folder / name, table, places)
    durations = {
        key: _seconds(folder / "utt2dur", key, value)
        for key, value in tables.get("utt2dur", {}).items()
    }
    return [
        Utterance(
            id=name,
            audio=audio,
            start=start,
            end=end,
            text=tables["text"][name] if "text" in tables else None,
            language=tables.get("utt2lang", {}).get(name),
            speaker=_speaker(name, tables.get("utt2spk", {}).get(name)),
            duration=durations.get(name),
        )
        for name, (audio, start, end) in places.items()
    ]


def write_data_dir(
    folder: str | Path,
    utterances: Iterable[Utterance],
    extra_files: Mapping[str, str] | None = None,
) -> None:
    """Write a data directory, whole or not at all.

    An utterance without a speaker is its own speaker, as Kaldi's documentation asks. Paths become
    absolute and white space inside texts single spaces. If one utterance is a stretch of a
    recording, all are written with ``segments``.

    Args:
        folder: Replaced if it is such a data directory.
        utterances: At least one, in any order. Either all have a text or none; so with languages.
        extra_files: Contents by name of files that go along (a LICENCE).

    Raises:
        DataError: No utterance, an id twice or unfit, speakers that do not sort as their
            utterances do, texts with control characters or Kaldi's own symbols.
        AudioError: A stretch without an end, of a recording that cannot be read.
    """
    chosen = sorted(utterances, key=lambda u: u.id.encode())
    if not chosen:
        raise DataError(f"{folder}: no utterances to write")
    for utterance in chosen:
        _check(utterance)
    _check_order(chosen)
    speakers: dict[str, list[str]] = {}
    for utterance in chosen:
        speakers.setdefault(utterance.speaker or utterance.id, []).append(utterance.id)
    tables = {
        "utt2spk": [f"{u.id} {u.speaker or u.id}" for u in chosen],
        "spk2utt": [f"{speaker} {' '.join(ids)}" for speaker, ids in speakers.items()],
    }
    if any(u.start is not None or u.end is not None for u in chosen):
        # A recording is called like its first utterance, so this order is sorted too.
        names: dict[str, str] = {}
        for utterance in chosen:
            names.setdefault(utterance.audio, utterance.id)
        tables["segments"] = [f"{u.id} {names[u.audio]} {_stretch(u)}" for u in chosen]
        tables["wav.scp"] = [f"{name} {_absolute(audio)}" for audio, name in names.items()]
    else:
        tables["wav.scp"] = [f"{u.id} {_absolute(u.audio)}" for u in chosen]
    if _all_or_none(chosen, "text"):
        tables["text"] = [" ".join([u.id, *(u.text or "").split()]) for u in chosen]
    if _all_or_none(chosen, "language"):
        tables["utt2lang"] = [f"{u.id} {u.language}" for u in chosen]
    if all(u.duration is not None for u in chosen):
        tables["utt2dur"] = [f"{u.id} {_number(u.duration)}" for u in chosen]
    with replacing(Path(folder), *_TABLES, *(extra_files or ())) as temporary:
        temporary.mkdir()
        for name, lines in tables.items():
            (temporary / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, content in (extra_files or {}).items():
            (temporary / name).write_text(content, encoding="utf-8")


def _check(utterance: Utterance) -> None:
    for what, value in (
        ("id", utterance.id),
        ("speaker", utterance.speaker),
        ("language", utterance.language),
    ):
        if value is not None and (value.split() != [value] or _unprintable(value)):
            raise DataError(
                f"utterance {utterance.id!r}: its {what} {value!r} must be one word without "
                "control characters"
            )
    audio = utterance.audio
    if audio.strip() != audio or not audio.isprintable() or audio.startswith("~") or not audio:
        raise DataError(
            f"utterance {utterance.id}: wav.scp cannot hold the path {utterance.audio!r}; rename "
            "the file"
        )
    if utterance.duration is not None and not 0 < utterance.duration < float("inf"):
        raise DataError(f"utterance {utterance.id}: lasts {utterance.duration} s; correct it")
    words = (utterance.text or "").split()
    if _unprintable("".join(words)) or _FORBIDDEN.search(" ".join([utterance.id, *words])):
        raise DataError(
            f"utterance {utterance.id}: its text has control characters or one of <s> </s> #0; "
            "clean the transcript"
        )


def _check_order(chosen: list[Utterance]) -> None:
    """Kaldi's tools need the same order by utterance and by (speaker, utterance)."""
    for one, following in pairwise(chosen):
        if one.id == following.id:
            raise DataError(f"utterance {one.id}: twice in one set; ids must be unique")
        first, second = (u.speaker or u.id for u in (one, following))
        if first.encode() > second.encode():
            raise DataError(
                f"utterance {following.id}: its speaker {second} sorts before {first} of {one.id}; "
                "begin every id with its speaker and a -"
            )


def _all_or_none(chosen: list[Utterance], what: str) -> bool:
    without = [u.id for u in chosen if getattr(u, what) is None]
    if without and len(without) < len(chosen):
        raise DataError(
            f"{len(without)} of {len(chosen)} utterances have no {what}, first {without[0]}; Kaldi "
            "wants all or none: write two directories"
        )
    return not without


def _stretch(utterance: Utterance) -> str:
    """Start and end in seconds; Kaldi's validation refuses -1, which its tools take as the end."""
    start = utterance.start or 0.0
    end = audio_duration(utterance.audio) if utterance.end is None else utterance.end
    if not 0 <= start < end:
        raise DataError(f"utterance {utterance.id}: {start} … {end} s is no stretch of time")
    return f"{_number(start)} {_number(end)}"


def _number(value: float | None) -> str:
    """The shortest decimal that reads back as the same number, never with an exponent."""
    return format(Decimal(repr(float(value or 0.0))), "f")


def _absolute(audio: str) -> str:
    """Paths that hold wherever a script stands; commands stay as they are."""
    return audio if audio.endswith("|") else str(Path(audio).absolute())


def _unprintable(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs", "Cn") for character in text)


def _speaker(name: str, speaker: str | None) -> str | None:
    return None if speaker == name else speaker


def _check_commands(path: Path, recordings: Mapping[str, str]) -> None:
    """A plain path that ends in ``|`` by mistake would be run as a program."""
    for number, (name, audio) in enumerate(recordings.items(), 1):
        command = Path(audio.rstrip("| "))
        if audio.endswith("|") and command.is_file() and not os.access(command, os.X_OK):
            raise DataError(
                f"{path}:{number}: {name} is the file {command} followed by a |, which means to "
                "run it; remove the |"
            )


def read_table(path: Path, empty_values: bool = False) -> dict[str, str]:
    """``key value`` lines, sorted by bytes as under ``LC_ALL=C``.

    Args:
        path: Of the table.
        empty_values: Whether a line may be a key alone.

    Raises:
        DataError: It breaks its format; the message names file and line.
    """
    rows: dict[str, str] = {}
    previous = b""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: is empty; prepare the data directory again")
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, raw in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: not UTF-8 (byte {raw[error.start]:#04x}); convert it with iconv"
            ) from error
        if line.startswith("\ufeff"):
            raise DataError(f"{where}: begins with a byte order mark; save it as plain UTF-8")
        # Only blanks and tabs: Kaldi's tools take other white space as part of a word.
        key, *rest = re.split(r"[ \t]+", line.rstrip(" \t\r"), maxsplit=1)
        if not key:
            raise DataError(f"{where}: expected an id at the beginning of the line")
        value = rest[0] if rest else ""
        if not value and not empty_values:
            raise DataError(f"{where}: {key} has no value; complete or remove the line")
        if key in rows:
            raise DataError(f"{where}: {key} is there twice; ids must be unique")
        if key.encode() < previous:
            raise DataError(
                f"{where}: {key} is not in order after {previous.decode()}; "
                "sort the file with LC_ALL=C sort"
            )
        previous = key.encode()
        rows[key] = value
    return rows


def _read_segments(
    path: Path, recordings: Mapping[str, str]
) -> dict[str, tuple[str, float | None, float | None]]:
    places: dict[str, tuple[str, float | None, float | None]] = {}
    for number, (name, value) in enumerate(read_table(path).items(), 1):
        fields = value.split()
        if len(fields) != 3:
            raise DataError(f"{path}:{number}: expected <utterance> <recording> <start> <end>")
        recording = fields[0]
        if recording not in recordings:
            raise DataError(f"{path}:{number}: recording {recording} is not in wav.scp")
        try:
            start, end = float(fields[1]), float(fields[2])
        except ValueError:
            raise DataError(f"{path}:{number}: {value!r} has a time that is no number") from None
        if not (0 <= start < float("inf") and (start < end < float("inf") or end == -1)):
            raise DataError(f"{path}:{number}: {start} … {end} s is no stretch of time")
        places[name] = (recordings[recording], start, None if end == -1 else end)
    return places


def same_ids(path: Path, table: Mapping[str, str], places: Mapping[str, object]) -> None:
    """Raise :class:`DataError` unless a table speaks of the utterances that there are."""
    missing, extra = sorted(set(places) - set(table)), sorted(set(table) - set(places))
    if missing or extra:
        what = f"{len(missing)} ids missing, {len(extra)} unknown"
        example = (missing or extra)[0]
        raise DataError(
            f"{path}: {what} compared with wav.scp or segments, first {example}; run "
            "utils/fix_data_dir.sh or prepare the directory again"
        )


def _seconds(path: Path, name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise DataError(f"{path}: {name} has {value!r}, expected seconds above 0")
    return seconds
