"""The one type every corpus, manifest and data directory is read into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech and what is known about it.

    Attributes:
        id: Unique within its set; no white space.
        audio: Path of an audio file, or a Kaldi command that ends in ``|``.
        start: First second of the utterance inside the file; None = the beginning.
        end: Last second; None = the end of the file.
        text: Reference transcript; None when unknown (an empty string is a real, empty reference).
        language: Language code as Whisper has it (``be``, ``ro``); None when unknown.
        speaker: Speaker id; None when unknown.
        duration: Seconds; None when not measured yet.
    """

    id: str
    audio: str
    start: float | None = None
    end: float | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    duration: float | None = None
