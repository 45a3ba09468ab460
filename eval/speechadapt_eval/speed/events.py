"""What a streaming system showed, and when: the reader of ``events.jsonl``.

One JSON object a line, in the order in which the events happened; utterances may be interleaved:

    {"utterance": "u1", "audio_s": 1.0, "wall_s": 1.21, "text": "добры", "final": false}

``audio_s`` is how much of the utterance's audio the system had been given, ``wall_s`` the time
since its audio began to be sent, ``text`` its whole text as shown now (not what was added), and
``final`` marks its last event. Audio is sent as it is spoken: ``wall_s`` can not be less than
``audio_s``. A simulation logs ``max(audio_s, wall_s of the event before) + compute`` instead of
the time of a clock.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import numbered_lines

_LONGEST = 1e9  # seconds
_EARLY = 0.05  # seconds that a wall clock may be ahead: both clocks are rounded when logged


@dataclass(frozen=True, slots=True)
class Event:
    """One text that a stream showed.

    Attributes:
        audio: Seconds of audio given so far.
        wall: Seconds since the audio began to be sent.
        text: The whole text of the utterance at this moment.
    """

    audio: float
    wall: float
    text: str


@dataclass(frozen=True)
class Stream:
    """All events of an utterance; the last is the final one.

    Attributes:
        id: Of the utterance.
        events: At least one, in time order.
    """

    id: str
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        """Length of the audio: what the final event had been given."""
        return self.events[-1].audio

    @property
    def text(self) -> str:
        """The final text."""
        return self.events[-1].text


def read_events(path: Path) -> dict[str, Stream]:
    """Read ``events.jsonl``, utterances in the order of their first event.

    Raises:
        EvalError: The file or a line cannot be read, time goes backwards, an event follows the
            final one, or an utterance has no final event (file and line named).
    """
    events: dict[str, list[Event]] = {}
    last: dict[str, str] = {}  # where the last event of an utterance is
    final: set[str] = set()
    for where, line in numbered_lines(path):
        name, event, is_final = _event(where, line)
        if name in final:
            raise EvalError(f"{where}: utterance {name!r} goes on after its final event")
        before = events.setdefault(name, [])
        if before:
            for key, new, old in (
                ("audio_s", event.audio, before[-1].audio),
                ("wall_s", event.wall, before[-1].wall),
            ):
                if new < old:
                    raise EvalError(
                        f"{where}: {key} of {name!r} goes back from {old:g} to {new:g}; "
                        "write the events in the order in which they happened"
                    )
        before.append(event)
        last[name] = where
        if is_final:
            final.add(name)
            if not event.audio:
                raise EvalError(f"{where}: {name!r} ends after 0 s of audio: nothing was heard")
    for name in events:
        if name not in final:
            raise EvalError(
                f"{last[name]}: this is the last event of {name!r} and not final; the stream was "
                "cut, so run it again, or mark the event that holds its whole text"
            )
    return {name: Stream(name, tuple(those)) for name, those in events.items()}


@dataclass(frozen=True)
class Segment:
    """A line of Kaldi's ``segments``.

    Attributes:
        id: Of the utterance.
        recording: Where it was cut from.
        start: Seconds from the beginning of the recording.
        end: Seconds, after ``start``.
    """

    id: str
    recording: str
    start: float
    end: float


def read_segments(path: Path) -> list[Segment]:
    """Read Kaldi's ``segments``: utterance id, recording id, start and end in seconds.

    Raises:
        EvalError: The file or a line cannot be read, or an id occurs twice.
    """
    segments: dict[str, Segment] = {}
    for where, line in numbered_lines(path):
        fields = line.split()
        try:
            name, recording, start, end = fields[0], fields[1], *map(float, fields[2:])
        except (ValueError, IndexError) as error:
            raise EvalError(f"{where}: not an utterance id, a recording id, start, end") from error
        if not 0 <= start < end < math.inf:
            raise EvalError(f"{where}: {name!r} starts at {start:g} s and ends at {end:g} s")
        if name in segments:
            raise EvalError(f"{where}: segment {name!r} occurs a second time")
        segments[name] = Segment(name, recording, start, end)
    return list(segments.values())


def read_ctm(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Read when words were spoken: utterance id, channel, start, duration, word on each line.

    Further fields and lines that begin with ``;;`` are left out.

    Returns:
        Utterance id to its words and where each ends, in seconds, in the order of the file.

    Raises:
        EvalError: The file or a line cannot be read, or words of an utterance go backwards.
    """
    ends: dict[str, list[tuple[str, float]]] = {}
    for where, line in numbered_lines(path):
        if line.startswith(";;"):
            continue
        fields = line.split()
        try:
            name, end, word = fields[0], float(fields[2]) + float(fields[3]), fields[4]
        except (ValueError, IndexError) as error:
            raise EvalError(f"{where}: not an id, channel, start, duration, word") from error
        spoken = ends.setdefault(name, [])
        if not (spoken[-1][1] if spoken else 0) <= end < _LONGEST:
            raise EvalError(f"{where}: {word!r} of {name!r} ends at {end:g} s, before the last one")
        spoken.append((word, end))
    return ends


def _event(where: str, line: str) -> tuple[str, Event, bool]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{where}: not JSON ({error}); write one object a line") from error
    if not isinstance(value, dict):
        raise EvalError(f"{where}: not an object with utterance, audio_s, wall_s, text, final")
    for key, good, kind in (
        ("utterance", bool, str),
        ("text", lambda text: True, str),
        ("final", lambda flag: True, bool),
    ):
        if not isinstance(value.get(key), kind) or not good(value[key]):
            what = {str: "a text", bool: "true or false"}[kind]
            raise EvalError(f"{where}: {key!r} is {_shown(value, key)} instead of {what}")
    for key in ("audio_s", "wall_s"):
        number = value.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise EvalError(f"{where}: {key!r} is {_shown(value, key)} instead of seconds")
        if not 0 <= number < _LONGEST:
            raise EvalError(f"{where}: {key!r} is {_shown(value, key)}: seconds count from 0 up")
    event = Event(float(value["audio_s"]), float(value["wall_s"]), value["text"])
    if event.wall < event.audio - _EARLY:
        raise EvalError(
            f"{where}: {event.audio:g} s of audio were given by {event.wall:g} s: faster than "
            "they are spoken, so the wall clock says nothing; send audio in real time"
        )
    return value["utterance"], event, value["final"]


def _shown(value: dict[str, Any], key: str) -> str:
    text = json.dumps(value[key], ensure_ascii=False) if key in value else "missing"
    return text if len(text) <= 40 else text[:37] + "..."
