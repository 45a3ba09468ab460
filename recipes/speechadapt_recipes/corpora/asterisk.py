"""Asterisk prompts: what telephone systems say, in five languages, one studio voice each.

Debian packages ``asterisk-core-sounds-LANG-g722`` (the sound, 16 kHz) and
``asterisk-core-sounds-LANG`` (the texts, ``key: text``). The same key has a text in every language,
so splits are made over keys, the same for all languages.

Rules, in this order:

- A text in nothing but brackets (``[ascending tones]``, ``(1 second of silence)``) describes a
  sound. Such recordings go to the set ``nonspeech`` with an empty reference: what a recogniser
  writes there it has invented.
- Brackets around signs alone (``at [@]``) are dropped.
- Other remarks in brackets may or may not be spoken: those recordings are unusable.
- So are recordings without a text, and those under 30 ms per character of text.

Numerals stay as the transcripts have them, sometimes as digits (``600``), sometimes as words:
compare with numerals normalised too. An adapter trained on one voice also learns the voice.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

from speechadapt.data import Utterance
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
from speechadapt_recipes.corpora.g722 import check_decoder, decode_g722
from speechadapt_recipes.corpora.splits import SPLITS, assign_splits, normalised

NONSPEECH = "nonspeech"
VERSION = "1.6.1-1"
_HASHES = {  # language: SHA-256 and bytes of the sounds, SHA-256 and bytes of the texts
    "en": (
        ("38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806", 10_565_860),
        ("973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50", 22_844),
    ),
    "es": (
        ("e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8", 13_048_380),
        ("9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74", 22_012),
    ),
    "fr": (
        ("7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0", 10_822_860),
        ("04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056", 23_152),
    ),
    "it": (
        ("46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016", 10_087_176),
        ("3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b", 23_972),
    ),
    "ru": (
        ("673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b", 10_579_440),
        ("28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab", 25_592),
    ),
}
LANGUAGES = tuple(_HASHES)
_LICENCES = {"ru": "CC-BY-3.0"}
_BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def archives_of(language: str) -> tuple[Archive, Archive]:
    """The packages with the sounds and with the texts of a language."""
    licence = _LICENCES.get(language, "CC-BY-SA-3.0")
    sounds, texts = (
        Archive(f"{package}_{VERSION}_all.deb", sha256, "deb", package, VERSION, licence, size)
        for package, (sha256, size) in zip(
            (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}"),
            _HASHES[language],
            strict=True,
        )
    )
    return sounds, texts


def prepare(
    folder: Path,
    downloads: Path,
    languages: Sequence[str] = LANGUAGES,
    archives: Path | None = None,
    nj: int = 2,
) -> dict[str, Sizes]:
    """Write ``folder/<language>/{train,dev,test,nonspeech}`` data directories.

    Args:
        folder: Where to.
        downloads: Where archives are kept and unpacked.
        languages: Some of :data:`LANGUAGES`.
        archives: Folder of archives fetched by hand.
        nj: Parallel threads.

    Returns:
        Clips, distinct texts and minutes by language and split.

    Raises:
        AudioError: Nothing on this system decodes G.722.
        DataError: A language the corpus does not have.
        FetchError: An archive cannot be had.
    """
    check_languages(languages, LANGUAGES, "Asterisk")
    check_decoder()
    texts = all_texts(downloads, archives)
    splits = split_keys(texts)
    sizes = {}
    with preparing(folder, *(source for name in languages for source in archives_of(name))):
        for language in languages:
            sounds = archives_of(language)[0]
            voices = unpacked(sounds, downloads, archives) / "usr/share/asterisk/sounds"
            clips, left_out = select(voices, language, texts[language], splits)
            check_splits(clips, key_of)
            sizes[language] = write_corpus(
                folder / language,
                folder / "flac" / language,
                clips,
                f"{sounds.licence}: {sounds.package} {sounds.version}\n",
                f"asterisk {language}",
                nj,
                decoder=decode_g722,
                splits=(*SPLITS, NONSPEECH),
                left_out=left_out,
            )
    return sizes


def all_texts(downloads: Path, archives: Path | None = None) -> dict[str, dict[str, str]]:
    """Texts by language and key, of every language: the splits depend on all of them.

    Raises:
        FetchError: An archive cannot be had.
    """
    texts = {}
    for language in LANGUAGES:
        package = unpacked(archives_of(language)[1], downloads, archives)
        listing = f"asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
        texts[language] = read_texts(package / "usr/share/doc" / listing)
    return texts


def read_texts(path: Path) -> dict[str, str]:
    """Texts by key of a ``core-sounds-LANG.txt.gz``; comments begin with a semicolon."""
    texts: dict[str, str] = {}
    # The Italian file begins with a byte order mark.
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").split("\n"):
        key, separator, text = line.partition(":")
        if separator and not key.startswith(";"):
            texts.setdefault(key.strip(), text.strip())
    return texts


def spoken(text: str) -> str | None:
    """What is spoken according to a text; empty for sounds, None where remarks leave it open."""
    outside = " ".join(_BRACKETS.sub(" ", text).split())
    if not normalised(outside):
        return "" if text else None
    if any(normalised(remark) for remark in _BRACKETS.findall(text)):
        return None
    return outside


def split_keys(texts: dict[str, dict[str, str]]) -> dict[str, str]:
    """Split of every key, from the texts of all languages; sounds are ``nonspeech`` by language."""
    keys = sorted(set().union(*texts.values()))
    return assign_splits(
        {
            key: [(name, spoken(found[key]) or "") for name, found in texts.items() if key in found]
            for key in keys
        }
    )


def key_of(utterance: Utterance) -> str:
    """The prompt's key, as the utterance's id has it."""
    return utterance.id.partition("-")[2]


def select(
    voices: Path, language: str, texts: dict[str, str], splits: dict[str, str]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Recordings below ``voices/<voice>`` with their texts; ``(id, reason)`` of the unusable."""
    speaker = f"asterisk_{language}"
    clips, left_out = [], []
    for audio in sorted(voices.glob("*/**/*.g722")):
        key = audio.relative_to(voices).with_suffix("").as_posix().partition("/")[2]
        name = f"{speaker}-{key.replace('/', '_')}"
        text = spoken(texts.get(key, ""))
        if text is None:
            reason = "a remark in brackets may be spoken or not" if texts.get(key) else "no text"
            left_out.append((name, reason))
            continue
        utterance = Utterance(name, str(audio), text=text, language=language, speaker=speaker)
        clips.append(Clip(utterance, splits[key] if text else NONSPEECH))
    return clips, left_out
