"""What Kaldi's validation of a data directory demands, written from its documentation."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2utt", "utt2lang", "utt2dur")


def problems(folder: Path) -> list[str]:
    """Every rule the directory breaks, as words; empty = Kaldi would accept it."""
    found: list[str] = []
    tables: dict[str, list[list[bytes]]] = {}
    for name in _TABLES:
        path = folder / name
        if not path.is_file():
            continue
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            found.append(f"{name}: does not end in a newline")
        # As under LC_ALL=C: bytes, fields separated by blanks and tabs.
        rows = [re.split(rb"[ \t]+", line.strip(b" \t")) for line in data.split(b"\n")[:-1]]
        keys = [row[0] for row in rows]
        if keys != sorted(set(keys)):
            found.append(f"{name}: unsorted or double ids")
        tables[name] = rows
    for name in ("utt2spk", "spk2utt", "wav.scp"):
        if not tables.get(name):
            return [*found, f"{name}: missing or empty"]
    if any(len(row) != 2 for row in tables["utt2spk"]):
        found.append("utt2spk: not two columns")
    pairs = [(row[1], row[0]) for row in tables["utt2spk"]]
    if pairs != sorted(pairs):
        found.append("utt2spk: not sorted by speaker")
    if [(row[0], utt) for row in tables["spk2utt"] for utt in row[1:]] != pairs:
        found.append("spk2utt: not the inverse of utt2spk")
    utterances = [row[0] for row in tables["utt2spk"]]
    places = "segments" if "segments" in tables else "wav.scp"
    for name in ("text", "utt2lang", "utt2dur", places):
        if name in tables and [row[0] for row in tables[name]] != utterances:
            found.append(f"{name}: other utterances than utt2spk")
    if any(len(row) < 2 for row in tables["wav.scp"]):
        found.append("wav.scp: an id without a place")
    if any(len(row) > 1 and row[1].startswith(b"~") for row in tables["wav.scp"]):
        found.append("wav.scp: a tilde")
    for row in tables.get("segments", []):
        if len(row) != 4 or float(row[3]) <= float(row[2]):
            found.append(f"segments: {row}")
    if "segments" in tables:
        recordings = sorted({row[1] for row in tables["segments"]})
        if recordings != [row[0] for row in tables["wav.scp"]]:
            found.append("segments: other recordings than wav.scp")
    for row in tables.get("utt2dur", []):
        if len(row) != 2 or not re.fullmatch(rb"[0-9.]+", row[1]) or not float(row[1]) > 0:
            found.append(f"utt2dur: {row}")
    if "text" in tables:
        found += _text_problems((folder / "text").read_bytes())
    return found


def _text_problems(data: bytes) -> list[str]:
    if re.search(rb"(?<![A-Za-z0-9_])(<s>|</s>|#0)(?![A-Za-z0-9_])", data):
        return ["text: a symbol of the language model"]
    for character in set(data.decode("utf-8")) - set(" \t\n"):
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cn"):
            return [f"text: the character {character!r}"]
    return []
