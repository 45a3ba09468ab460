"""Transcripts as text, JSON, subtitles or a Kaldi ``text`` file."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from speechadapt.decoding.timestamps import Word
from speechadapt.decoding.tokens import Segment
from speechadapt.decoding.transcriber import Transcript
from speechadapt.errors import DataError

SUFFIXES = {"txt": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "kaldi": ""}
_CUE_CHARACTERS = 84  # two lines of 42
_CUE_SECONDS = 7.0
_CUE_GAP = 1.0  # seconds of silence that end a cue
_SHORTEST_CUE = 0.1  # seconds: players drop cues that end as they start
_SENTENCE_END = (".", "!", "?", "…", "。", "！", "？", "।")


def to_dict(transcript: Transcript) -> dict[str, Any]:
    """Everything known of a transcript as JSON values; times in seconds."""
    found = transcript.hypothesis
    return {
        "id": transcript.id,
        "seconds": round(transcript.seconds, 3),
        "text": found.text,
        "language": found.language,
        "language_probability": _rounded(found.language_probability),
        "avg_logprob": _rounded(found.avg_logprob),
        "no_speech_prob": _rounded(found.no_speech_prob),
        "compression_ratio": _rounded(found.compression_ratio),
        "temperature": found.temperature,
        "segments": [asdict(segment) for segment in found.segments],
        "words": [asdict(word) for word in found.words],
    }


def to_json(transcript: Transcript, *, indent: int | None = 2) -> str:
    """One JSON object; ``indent=None`` puts it on one line, as JSON Lines need it."""
    return json.dumps(to_dict(transcript), ensure_ascii=False, indent=indent) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles. The format has no escapes, so an arrow in the text loses a dash."""
    blocks = []
    for number, cue in enumerate(cues(transcript), 1):
        text = cue.text.replace("-->", "->")
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles; ``&``, ``<`` and ``>`` are escaped as the format asks."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        text = html.escape(cue.text, quote=False)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def to_kaldi(transcripts: Iterable[Transcript]) -> str:
    """A Kaldi ``text`` file: id and words, sorted as ``LC_ALL=C sort`` does.

    Raises:
        DataError: An id is empty, holds white space, or comes twice.
    """
    lines: dict[str, str] = {}
    for transcript in transcripts:
        name = transcript.id
        if not name or name.split() != [name]:
            raise DataError(f"id {name!r} cannot stand in a Kaldi text file: it has white space")
        if name in lines:
            raise DataError(f"id {name!r} comes twice and cannot stand in a Kaldi text file")
        lines[name] = " ".join([name, *transcript.text.split()])
    return "".join(lines[name] + "\n" for name in sorted(lines, key=str.encode))


def to_text(transcript: Transcript) -> str:
    """The text on one line."""
    return " ".join(transcript.text.split()) + "\n"


def cues(transcript: Transcript) -> list[Segment]:
    """What subtitles show: words in groups that can be read, or else the segments."""
    found = transcript.hypothesis
    pieces = [_joined(group) for group in _groups(found.words)] if found.words else found.segments
    shown = []
    for piece in pieces:
        text = " ".join(piece.text.split())
        if text:
            shown.append(Segment(piece.start, max(piece.end, piece.start + _SHORTEST_CUE), text))
    return shown


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    groups: list[list[Word]] = []
    for word in words:
        group = groups[-1] if groups else []
        if not group or (
            len("".join(w.text for w in group) + word.text) > _CUE_CHARACTERS
            or word.end - group[0].start > _CUE_SECONDS
            or word.start - group[-1].end > _CUE_GAP
            or group[-1].text.rstrip().endswith(_SENTENCE_END)
        ):
            groups.append([word])
        else:
            group.append(word)
    return groups


def _joined(words: Sequence[Word]) -> Segment:
    return Segment(words[0].start, words[-1].end, "".join(word.text for word in words))


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{milliseconds:03d}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
