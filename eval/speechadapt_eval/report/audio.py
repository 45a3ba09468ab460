"""Players of recordings in a page: by relative address, or inside the page."""

from __future__ import annotations

import base64
import math
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

# What browsers play. Others are named, not played.
_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".webm": "audio/webm",
}


@dataclass
class Players:
    """Makes players for a page.

    Attributes:
        folder: Where the page will be; addresses are relative to it.
        room: Bytes of recordings that may still go into the page; 0: none.
    """

    folder: Path
    room: int = 0

    def player(self, recording: object, start: float = math.nan, end: float = math.nan) -> str:
        """HTML of a player; empty if there is no such file or browsers do not play its kind.

        Args:
            recording: Path of the file as the run names it.
            start: Where the utterance begins in it, in seconds; NaN: the whole file.
            end: Where it ends; NaN: with the file.
        """
        if not isinstance(recording, str) or "\0" in recording:
            return ""
        path = Path(recording)
        kind = _TYPES.get(path.suffix.lower())
        if kind is None or not path.is_file():
            return ""
        source = self._inside(path, kind) or quote(
            Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()
        )
        ends = ",".join("" if math.isnan(t) else f"{t:g}" for t in (start, end)).rstrip(",")
        source += f"#t={ends}" if ends else ""
        return f'<audio controls preload="none" src="{escape(source)}"></audio>'

    def _inside(self, path: Path, kind: str) -> str:
        try:
            if path.stat().st_size > self.room:
                return ""
            data = path.read_bytes()
        except OSError:
            return ""  # its address stays
        self.room -= len(data)
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"
