"""Kaldi data directories: wav.scp, segments, text, utt2spk, spk2utt, utt2lang, utt2dur.

Written so that Kaldi's ``validate_data_dir.sh`` accepts them; read with the same strictness, because
an unsorted or inconsistent directory silently pairs wrong things later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from speechadapt.data.utterance import Utterance
from speechadapt.errors import DataError
from speechadapt.files import replacing


def read_data_dir(folder: str | Path) -> list[Utterance]:
    """Read a data directory.

    Args:
        folder: Has wav.scp, and whatever else there is of segments, text, utt2spk, utt2lang, utt2dur.

    Returns:
        Utterances in the directory's order.

    Raises:
        DataError: A file is missing, empty, unsorted, not UTF-8, has an id twice, or the files
            disagree about which utterances there are. The message names file and line.
    """
    folder = Path(folder)
    if not (folder / "wav.scp").is_file():
        raise DataError(f"{folder}: no wav.scp, so this is no Kaldi data directory")
    recordings = _read_table(folder / "wav.scp")
    places: dict[str, tuple[str, float | None, float | None]]
    if (folder / "segments").is_file():
        places = _read_segments(folder / "segments", recordings)
    else:
        places = {name: (audio, None, None) for name, audio in recordings.items()}
    tables = {
        name: _read_table(folder / name, empty_values=name == "text")
        for name in ("text", "utt2spk", "utt2lang", "utt2dur")
        if (folder / name).is_file()
    }
    for name, table in tables.items():
        _same_ids(folder / name, table, places)
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
            speaker=tables.get("utt2spk", {}).get(name),
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

    An utterance without a speaker is its own speaker, as Kaldi's documentation asks.

    Args:
        folder: Replaced if it is there.
        utterances: At least one, in any order; each a whole recording, or all of them stretches.
        extra_files: Contents by name of files that go along (a LICENCE).

    Raises:
        DataError: No utterance, an id twice, an id with white space or that does not begin with its
            speaker, or a text with control characters.
    """
    chosen = sorted(utterances, key=lambda u: u.id.encode())
    if not chosen:
        raise DataError(f"{folder}: no utterances to write")
    speakers: dict[str, list[str]] = {}
    for one, following in zip(chosen, [*chosen[1:], None], strict=True):
        _check(one, None if following is None else following.id)
        speakers.setdefault(one.speaker or one.id, []).append(one.id)
    tables = {
        "utt2spk": [f"{u.id} {u.speaker or u.id}" for u in chosen],
        "spk2utt": [
            f"{s} {' '.join(speakers[s])}" for s in sorted(speakers, key=lambda s: s.encode())
        ],
    }
    if any(u.start is not None or u.end is not None for u in chosen):
        tables["segments"] = [
            f"{u.id} {u.id}-rec {u.start or 0.0:g} {-1 if u.end is None else u.end:g}"
            for u in chosen
        ]
        tables["wav.scp"] = [f"{u.id}-rec {u.audio}" for u in chosen]
    else:
        tables["wav.scp"] = [f"{u.id} {u.audio}" for u in chosen]
    if all(u.text is not None for u in chosen):
        tables["text"] = [f"{u.id} {' '.join((u.text or '').split())}".rstrip() for u in chosen]
    if all(u.language for u in chosen):
        tables["utt2lang"] = [f"{u.id} {u.language}" for u in chosen]
    if all(u.duration is not None for u in chosen):
        tables["utt2dur"] = [f"{u.id} {u.duration:.3f}" for u in chosen]
    with replacing(Path(folder)) as temporary:
        temporary.mkdir()
        for name, lines in tables.items():
            (temporary / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, content in (extra_files or {}).items():
            (temporary / name).write_text(content, encoding="utf-8")


def _check(utterance: Utterance, following: str | None) -> None:
    name = utterance.id
    if not name or name.split() != [name]:
        raise DataError(f"utterance {name!r}: an id must have no white space")
    if name == following:
        raise DataError(f"utterance {name}: twice in one set; ids must be unique")
    if utterance.speaker is not None and not name.startswith(utterance.speaker):
        raise DataError(
            f"utterance {name}: does not begin with its speaker {utterance.speaker}; Kaldi sorts "
            "by both and needs the speaker as prefix"
        )
    if any(ord(c) < 32 and c not in "\t\n\r" for c in utterance.text or ""):
        raise DataError(f"utterance {name}: its text has control characters; clean the transcript")


def _read_table(path: Path, empty_values: bool = False) -> dict[str, str]:
    """``key value`` lines, sorted by bytes as under ``LC_ALL=C``."""
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
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if not key or line[0].isspace():
            raise DataError(f"{where}: expected an id at the beginning of the line")
        if not value and not empty_values:
            raise DataError(f"{where}: {key} has no value")
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
    for number, (name, value) in enumerate(_read_table(path).items(), 1):
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
        if not (start >= 0 and (end > start or end == -1)):
            raise DataError(f"{path}:{number}: {start} … {end} s is no stretch of time")
        places[name] = (recordings[recording], start, None if end == -1 else end)
    return places


def _same_ids(path: Path, table: Mapping[str, str], places: Mapping[str, object]) -> None:
    missing, extra = sorted(set(places) - set(table)), sorted(set(table) - set(places))
    if missing or extra:
        what = f"{len(missing)} ids missing, {len(extra)} unknown"
        example = (missing or extra)[0]
        raise DataError(f"{path}: {what} against wav.scp and segments, first {example}")


def _seconds(path: Path, name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise DataError(f"{path}: {name} has {value!r}, expected seconds above 0")
    return seconds
