"""The page of a listening test: one HTML file with everything in it, which sends nothing.

Raters open it, listen, and give back the CSV file that it writes, which ``read_ratings`` reads.
Absolute category rating (one sound, one score) after ITU-T P.808, or MUSHRA (all versions of a clip
side by side, an open and a hidden reference) after ITU-R BS.1534.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import soundfile

from speechadapt_eval.errors import EvalError
from speechadapt_eval.listening.ratings import CHECKS, Scale, read_kind, read_table

COLUMNS = ("clip", "system", "audio", "kind", "expected")
QUESTIONS = {
    "acr": "How good is the quality of what you heard?",
    "mushra": "How close to the reference is each sound?",
}
# Formats that browsers play, by soundfile's name for them.
TYPES = {
    "WAV": "audio/wav",
    "WAVEX": "audio/wav",
    "FLAC": "audio/flac",
    "OGG": "audio/ogg",
    "MP3": "audio/mpeg",
}
MOST_BYTES = 100_000_000
_CHOICES = 9  # sounds on one MUSHRA screen: there are as many keys


@dataclass(frozen=True)
class Sound:
    """One sound of a test.

    Attributes:
        clip: What is said.
        system: What made it; may be empty for gold clips and traps.
        audio: The bytes of a sound file.
        type: Its media type.
        seconds: Its length.
        kind: As of a ``Rating``.
        expected: The right score of a gold clip or trap, otherwise None.
    """

    clip: str
    system: str
    audio: bytes
    type: str
    seconds: float
    kind: str = "test"
    expected: float | None = None


def read_sounds(path: Path, scale: Scale) -> list[Sound]:
    """Read the table of a test: ``clip,system,audio`` and, where they apply, ``kind,expected``.

    Args:
        path: The table. Sound files are looked for in its folder.
        scale: Of the scores that are expected.

    Raises:
        EvalError: The table, a line or a sound file is wrong (file and line named).
    """
    sounds: list[Sound] = []
    seen: dict[tuple[str, str, str], str] = {}
    size = 0
    for where, row in read_table(path, COLUMNS, COLUMNS[:3]):
        sound = _sound(where, row, path.parent, scale)
        key = (sound.clip, sound.system, sound.kind)
        if key in seen:
            raise EvalError(f"{where}: {row['clip']!r} of {row['system']!r} again, see {seen[key]}")
        seen[key] = where
        size += len(sound.audio)
        if size > MOST_BYTES:
            raise EvalError(
                f"{where}: more than {MOST_BYTES // 1_000_000} MB of sound up to here, too much "
                "for one page; use FLAC, OGG or MP3 files, or make several tests"
            )
        sounds.append(sound)
    if not any(sound.kind not in CHECKS for sound in sounds):
        raise EvalError(f"{path}: no sound to rate, only gold clips and traps")
    if scale.name == "mushra":
        _check_items(path, sounds)
    return sounds


def render_test(
    sounds: Sequence[Sound], scale: Scale, *, title: str, intro: str = "", question: str = ""
) -> str:
    """The page as HTML.

    Args:
        sounds: What is to be rated.
        scale: ACR or MUSHRA.
        title: Of the page.
        intro: What raters read first: plain text, an empty line between paragraphs; by default a
            few sentences on how to listen.
        question: Asked above each sound; by default that of the scale.
    """
    audio: dict[bytes, int] = {}
    rows = [
        {
            "clip": sound.clip,
            "system": sound.system,
            "kind": sound.kind,
            "expected": sound.expected,
            "type": sound.type,
            "audio": audio.setdefault(sound.audio, len(audio)),
        }
        for sound in sounds
    ]
    content = {
        "scale": scale.name,
        "question": question or QUESTIONS[scale.name],
        "sounds": rows,
        "volume": next(i for i, sound in enumerate(sounds) if sound.kind not in CHECKS),
        "audio": [base64.b64encode(data).decode() for data in audio],
    }
    # Progress that a browser keeps belongs to this very test.
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    paragraphs = re.split(r"\n\s*\n", (intro or _intro(sounds, scale)).strip())
    parts = {
        "title": html.escape(title),
        "intro": "\n".join(f"<p>{html.escape(' '.join(p.split()))}</p>" for p in paragraphs),
        "style": _web("page.css"),
        "script": _web("page.js"),
        # "<" would let a name end the script element.
        "data": json.dumps({"test": digest, **content}).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _web("page.html"))


def _intro(sounds: Sequence[Sound], scale: Scale) -> str:
    seconds = sum(sound.seconds for sound in sounds)
    pause = 4 if scale.name == "acr" else 8  # a score takes about so long, in seconds
    minutes = max(1, round((seconds + pause * len(sounds)) / 60))
    what = (
        "You will hear one sound at a time. Listen to its end, then give it a score from 1 (bad) "
        "to 5 (excellent)."
        if scale.name == "acr"
        else "On each screen there are several versions of one recording. Compare them with the "
        "reference and with each other, and move the slider of each: 100 is as good as the "
        "reference. One of the versions is the reference itself."
    )
    return (
        f"{what}\n\nThis takes about {minutes} minute{'s' if minutes > 1 else ''}. Please sit in a "
        "quiet room and use headphones. If a voice in a sound tells you which score to give, give "
        "that one.\n\nYour progress is kept in this browser: you may close the page and go on "
        "later under the same name."
    )


def _sound(where: str, row: dict[str, str], folder: Path, scale: Scale) -> Sound:
    kind, expected = read_kind(where, row, ("clip", "audio"), scale)
    path = folder / row["audio"]
    try:
        info, data = soundfile.info(path), path.read_bytes()
    except (OSError, soundfile.SoundFileError) as error:
        raise EvalError(f"{where}: cannot read the sound {path}: {error}") from error
    if info.format not in TYPES:
        raise EvalError(
            f"{where}: {path} is {info.format}, which browsers do not play; convert it to "
            "WAV, FLAC, OGG or MP3"
        )
    if not info.frames:
        raise EvalError(f"{where}: {path} has no sound in it")
    return Sound(
        row["clip"], row["system"], data, TYPES[info.format], info.duration, kind, expected
    )


def _check_items(path: Path, sounds: Sequence[Sound]) -> None:
    """Each screen of a MUSHRA test needs its reference, and not too many versions."""
    items: dict[str, list[Sound]] = defaultdict(list)
    for sound in sounds:
        items[sound.clip].append(sound)
    for clip, versions in items.items():
        references = sum(sound.kind == "ref" for sound in versions)
        if references != 1 and any(sound.kind not in CHECKS for sound in versions):
            raise EvalError(
                f"{path}: clip {clip!r} has {references} sounds of kind ref; MUSHRA needs one, "
                "which is both the open and the hidden reference"
            )
        if len(versions) > _CHOICES:
            raise EvalError(
                f"{path}: clip {clip!r} has {len(versions)} versions; nobody can compare more "
                f"than {_CHOICES} on a screen"
            )


def _web(name: str) -> str:
    return (files(__package__) / "web" / name).read_text(encoding="utf-8").rstrip("\n")
