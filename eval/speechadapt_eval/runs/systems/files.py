"""Checksums of what a system consists of, and the settings behind its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder, hidden ones left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            total.update(f"{name.as_posix()}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def json_sha256(value: Mapping[str, Any] | list[Any]) -> str:
    """SHA-256 of an object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def split_settings(argument: str) -> tuple[str, dict[str, Any]]:
    """Cut ``DIR?beam_size=1&compute_type=int8``; values that are JSON, as 1 or true, are that."""
    body, _, query = argument.partition("?")
    settings: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return body, settings
