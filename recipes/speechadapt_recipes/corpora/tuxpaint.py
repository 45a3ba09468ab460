"""Tux Paint stamps: short descriptions of pictures, read by one volunteer for each language.

Debian package ``tuxpaint-stamps-default`` (GPL-2). ``NAME_desc_LANG.ogg`` speaks the line
``LANG.utf8=…`` of ``NAME.txt``. The same picture has a text in every language, so splits are
made over pictures, the same for all languages (:mod:`speechadapt_recipes.corpora.splits`).

A text much too long for its recording was not read to its end, or was lengthened later: clips under
30 ms per character are unusable, in training and test alike. Prices and other digits stay as they
are written. One voice a language: an adapter trained on one also learns the voice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt.fetch import Archive
from speechadapt_recipes.corpora.common import (
    Clip,
    Sizes,
    check_languages,
    check_splits,
    preparing,
    unpacked,
    write_corpus,
)
from speechadapt_recipes.corpora.splits import assign_splits

LANGUAGES = ("be", "bg", "ca", "el", "ro", "es", "fr", "ru")
LICENCE = (
    "GPL-2: Tux Paint stamps, Debian package tuxpaint-stamps-default {version}, "
    "recorded by volunteers of the Tux Paint project\n"
)

# Releases of the package that are known, newest first. Splits depend on the stamps' paths and texts
# alone, so a picture keeps its split in every release.
RELEASES = (
    Archive(
        name="tuxpaint-stamps-default_2022.06.04-1_all.deb",
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        kind="deb",
        package="tuxpaint-stamps-default",
        version="2022.06.04-1",
        licence="GPL-2",
        size=160_880_444,
    ),
)

_STAMPS = Path("usr/share/tuxpaint/stamps")


def prepare(
    folder: Path,
    downloads: Path,
    languages: Sequence[str] = LANGUAGES,
    archives: Path | None = None,
    nj: int = 2,
    archive: Archive = RELEASES[0],
) -> dict[str, Sizes]:
    """Write ``folder/<language>/{train,dev,test}`` data directories.

    Args:
        folder: Where to.
        downloads: Where archives are kept and unpacked.
        languages: Some of :data:`LANGUAGES`.
        archives: Folder of archives fetched by hand.
        nj: Parallel threads.
        archive: Release of the package.

    Returns:
        Clips, distinct texts and minutes by language and split.

    Raises:
        DataError: A language the corpus does not have.
        FetchError: The archive cannot be had.
    """
    check_languages(languages, LANGUAGES, "Tux Paint")
    stamps = stamps_folder(downloads, archives, archive)
    texts = read_texts(stamps)
    splits = split_stamps(texts)
    licence = LICENCE.format(version=archive.version)
    clips = {language: _clips(stamps, language, texts, splits) for language in languages}
    # Over all languages at once: no picture is in one language's training and another one's test.
    check_splits([clip for chosen in clips.values() for clip in chosen], stamp_of)
    sizes = {}
    with preparing(folder, archive):
        for language, chosen in clips.items():
            flac, name = folder / "flac" / language, f"tuxpaint {language}"
            sizes[language] = write_corpus(folder / language, flac, chosen, licence, name, nj)
    return sizes


def stamps_folder(
    downloads: Path, archives: Path | None = None, archive: Archive = RELEASES[0]
) -> Path:
    """The package's folder of stamps, fetched and unpacked if it is not there yet.

    Raises:
        FetchError: The archive cannot be had.
    """
    return unpacked(archive, downloads, archives) / _STAMPS


def split_stamps(texts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Split of every stamp, from its texts in :data:`LANGUAGES` and English."""
    return assign_splits({stamp: list(lines.items()) for stamp, lines in texts.items()})


def read_texts(stamps: Path, languages: Collection[str] = LANGUAGES) -> dict[str, dict[str, str]]:
    """Texts by language of every stamp (its path without suffix); English is the first line."""
    texts = {}
    for path in sorted(stamps.rglob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = {"en": lines[0].strip()} if lines else {}
        for line in lines[1:]:
            language, separator, text = line.partition(".utf8=")
            if separator and language in languages and text.strip():
                found[language] = text.strip()
        texts[path.relative_to(stamps).with_suffix("").as_posix()] = found
    return texts


def stamp_of(utterance: Utterance) -> str:
    """The picture an utterance describes, as its id has it."""
    return utterance.id.partition("-")[2]


def _clips(
    stamps: Path, language: str, texts: dict[str, dict[str, str]], splits: dict[str, str]
) -> list[Clip]:
    speaker = f"tuxpaint_{language}"  # one voice a language
    suffix = f"_desc_{language}.ogg"
    clips = []
    for audio in sorted(stamps.rglob(f"*{suffix}")):
        stamp = audio.relative_to(stamps).as_posix().removesuffix(suffix)
        if text := texts.get(stamp, {}).get(language):
            name = f"{speaker}-{stamp.replace('/', '_')}"
            utterance = Utterance(name, str(audio), text=text, language=language, speaker=speaker)
            clips.append(Clip(utterance, splits[stamp]))
    if len({clip.utterance.id for clip in clips}) < len(clips):
        raise DataError(f"{stamps}: two pictures of {language} would get the same utterance id")
    return clips
