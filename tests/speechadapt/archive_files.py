"""Debian packages and wheels small enough to be made by a test."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from speechadapt.fetch import Archive


def tar_bytes(files: Mapping[str, bytes], compression: str = "xz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}" if not name.startswith(("/", "..")) else name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def ar_bytes(members: Mapping[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        parts += [header.encode(), content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


def deb_bytes(files: Mapping[str, bytes], compression: str = "xz") -> bytes:
    control = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
    control += b"Description: x\n"
    return ar_bytes(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": tar_bytes({"control": control}),
            f"data.tar{'.' + compression if compression else ''}": tar_bytes(files, compression),
        }
    )


def wheel_bytes(files: Mapping[str, bytes], package: str = "tiny_data") -> bytes:
    """A wheel that pip takes."""
    stream = io.BytesIO()
    info = f"{package}-1.0.0.dist-info"
    with zipfile.ZipFile(stream, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return stream.getvalue()


def archive_of(path: Path, kind: str = "deb", package: str = "tiny-data") -> Archive:
    """The description that fits a file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    version = "1.0.0" if kind == "wheel" else "1-1"
    return Archive(path.name, digest, kind, package, version, "free", path.stat().st_size)
