"""Where transcripts go: a folder with a file for each, one file for all, or standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from speechadapt.decoding.formats import SUFFIXES, to_json, to_kaldi, to_srt, to_text, to_vtt
from speechadapt.decoding.transcriber import Transcript
from speechadapt.errors import ConfigError
from speechadapt.files import write_text
from speechadapt.progress import say

_SUBTITLES = {"srt": to_srt, "vtt": to_vtt}


class Output(Protocol):
    """Takes transcripts one by one."""

    def add(self, transcript: Transcript) -> None:
        """Take one that is finished."""
        ...

    def close(self) -> None:
        """Write what was waiting; also after an error, so that nothing finished is lost."""
        ...


def open_output(kind: str, out: Path | None, ids: Sequence[str]) -> Output:
    """Choose by what ``out`` looks like.

    A folder is one that exists, ends in a slash, or has no extension (of Kaldi's format, whose file
    is called ``text``, only the first two).

    Args:
        kind: ``txt``, ``json``, ``srt``, ``vtt`` or ``kaldi``.
        out: File or folder; None = standard output.
        ids: Of all recordings that will come.

    Raises:
        ConfigError: Unknown format, several subtitles for one file, or two recordings whose files
            would have the same name.
    """
    if kind not in SUFFIXES:
        raise ConfigError(f"format {kind!r} is unknown: use one of {', '.join(SUFFIXES)}")
    is_folder = out is not None and (out.is_dir() or (not out.suffix and kind != "kaldi"))
    if kind == "kaldi":
        if out is not None and is_folder:
            out = out / "text"
        return _OneFile(kind, out, several=len(ids) > 1)
    if out is not None and is_folder:
        names = [_file_name(name) for name in ids]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{out}: several recordings would be written to {twice[0]}")
        return _Folder(kind, out)
    if kind in _SUBTITLES and len(ids) > 1:
        raise ConfigError(
            f"{len(ids)} recordings cannot share one {kind} file: give a folder with --out"
        )
    return _OneFile(kind, out, several=len(ids) > 1)


class _Folder:
    """A file for each recording, written when it is finished."""

    def __init__(self, kind: str, folder: Path):
        self._kind, self._folder = kind, folder

    def add(self, transcript: Transcript) -> None:
        write = {"txt": to_text, "json": to_json, **_SUBTITLES}[self._kind]
        path = self._folder / (_file_name(transcript.id) + SUFFIXES[self._kind])
        write_text(path, write(transcript))

    def close(self) -> None:
        """Everything is written already."""


class _OneFile:
    """One file or standard output; what can be printed line by line is printed at once."""

    def __init__(self, kind: str, path: Path | None, *, several: bool):
        self._kind, self._path, self._several = kind, path, several
        self._lines: list[str] = []
        self._transcripts: list[Transcript] = []

    def add(self, transcript: Transcript) -> None:
        if self._kind == "kaldi":
            self._transcripts.append(transcript)
            return
        if self._kind == "txt":
            text = f"{transcript.id}\t" if self._several else ""
            text += to_text(transcript)
        elif self._kind == "json":
            text = to_json(transcript, indent=None if self._several else 2)
        else:
            text = _SUBTITLES[self._kind](transcript)
        if self._path is None:
            say(text, sys.stdout)
        else:
            self._lines.append(text)

    def close(self) -> None:
        text = to_kaldi(self._transcripts) + "".join(self._lines)
        if self._path is not None and text:
            write_text(self._path, text)
        elif text:
            say(text, sys.stdout)


def _file_name(name: str) -> str:
    """An id as a file name: ids of data directories may hold slashes."""
    return name.replace("/", "-").lstrip(".") or "-"
