"""Finds sound files that end too early where libsndfile takes what is left without a word."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_LAST_PAGE = 65_307  # bytes of the largest Ogg page
# Programs that write into a pipe do not know the length yet and put 0 or the largest number there.
_UNKNOWN = 0x7FFF_0000


def missing_bytes(stream: BinaryIO) -> int:
    """How many bytes of sound a WAV, AIFF, AU or Ogg file promises beyond its end.

    Other formats give 0: their decoders notice, or their headers promise nothing.

    Args:
        stream: At any position, seekable; stands somewhere else afterwards.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    magic = stream.read(12)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        return _chunk_missing(stream, size, "<4sI", b"data")
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _chunk_missing(stream, size, ">4sI", b"SSND")
    if magic[:4] == b".snd" and len(magic) == 12:
        offset, length = struct.unpack(">4xII", magic)
        return max(0, offset + length - size) if 0 < length < _UNKNOWN else 0
    if magic[:4] == b"OggS":
        return _page_missing(stream, size)
    return 0


def _chunk_missing(stream: BinaryIO, size: int, header: str, wanted: bytes) -> int:
    while len(raw := stream.read(8)) == 8:
        name, length = struct.unpack(header, raw)
        if name == wanted:
            return max(0, stream.tell() + length - size) if length < _UNKNOWN else 0
        stream.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _page_missing(stream: BinaryIO, size: int) -> int:
    start = stream.seek(max(0, size - _LAST_PAGE))
    tail = stream.read()
    page = tail.rfind(b"OggS\0")
    if page < 0 or len(tail) < page + 27:
        return 0
    table = tail[page + 27 : page + 27 + tail[page + 26]]
    return max(0, start + page + 27 + tail[page + 26] + sum(table) - size)
