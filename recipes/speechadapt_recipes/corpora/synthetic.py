"""Synthetic speech for training: the texts of the other corpora, spoken by espeak-ng.

Texts are those of Tux Paint's pictures and of Asterisk's prompts in the training sets of those
corpora, also in languages in which nobody has recorded them. A text that is held out there, in any
language, is never spoken. There is no dev or test set, and every utterance is ``synthetic`` in
``utt2class``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from speechadapt.data import Utterance
from speechadapt_recipes.corpora import asterisk, tuxpaint
from speechadapt_recipes.corpora.common import (
    Clip,
    Sizes,
    check_languages,
    preparing,
    write_corpus,
)
from speechadapt_recipes.corpora.draws import rng_of
from speechadapt_recipes.corpora.espeak import ARCHIVE, VOICES, Speaker, load_speaker
from speechadapt_recipes.corpora.splits import normalised

LANGUAGES = tuple(sorted({*tuxpaint.LANGUAGES, *asterisk.LANGUAGES}))
LICENCE = (
    f"Synthetic speech of espeak-ng ({ARCHIVE.package} {ARCHIVE.version}); texts: GPL-2, Tux Paint "
    f"stamps {tuxpaint.RELEASES[0].version}; CC-BY-SA-3.0 and CC-BY-3.0, Asterisk core sounds "
    f"{asterisk.VERSION}\n"
)
LONGEST_TEXT = 160  # characters, some twelve seconds
SPEEDS = (120, 200)  # words a minute
PITCHES = (30, 70)


def prepare(
    folder: Path,
    downloads: Path,
    languages: Sequence[str] = LANGUAGES,
    archives: Path | None = None,
    speaker: Speaker | None = None,
) -> dict[str, Sizes]:
    """Write ``folder/<language>/train`` data directories.

    Args:
        folder: Where to.
        downloads: Where archives are kept and unpacked.
        languages: Some of :data:`LANGUAGES`.
        archives: Folder of archives fetched by hand.
        speaker: Speaks; None = espeak-ng, fetched.

    Returns:
        Clips, distinct texts and minutes by language.

    Raises:
        DataError: A language that has no texts.
        FetchError: An archive cannot be had.
    """
    check_languages(languages, LANGUAGES, "synthetic speech")
    texts = free_texts(downloads, archives)
    voice = speaker or load_speaker(downloads, archives)
    sizes = {}
    with preparing(folder, ARCHIVE):
        for language in languages:
            clips = [_clip(language, text) for text in texts[language]]
            spoken = {clip.utterance.audio: clip.utterance for clip in clips}

            def say(name: str, spoken: Mapping[str, Utterance] = spoken) -> np.ndarray:
                return _say(voice, spoken[name])

            sizes[language] = write_corpus(
                folder / language,
                folder / "flac" / language,
                clips,
                LICENCE,
                f"synthetic {language}",
                1,  # the library speaks one text at a time
                decoder=say,
                splits=("train",),
                label="synthetic",
            )
    return sizes


def free_texts(downloads: Path, archives: Path | None = None) -> dict[str, list[str]]:
    """Texts by language that are in no dev or test set, each once.

    Raises:
        FetchError: An archive cannot be had.
    """
    stamps = tuxpaint.stamps_folder(downloads, archives)
    prompts = asterisk.all_texts(downloads, archives)
    sides = asterisk.split_keys(prompts)
    split = {f"prompt {key}": side for key, side in sides.items()}
    texts: dict[str, dict[str, str]] = {name: {} for name in split}
    for language, lines in prompts.items():
        for key, text in lines.items():
            texts[f"prompt {key}"][language] = asterisk.spoken(text) or ""
    split |= tuxpaint.split_stamps(tuxpaint.read_texts(stamps))
    texts |= tuxpaint.read_texts(stamps, LANGUAGES)
    return {language: _choose(texts, split, language) for language in LANGUAGES}


def _choose(
    texts: Mapping[str, Mapping[str, str]], split: Mapping[str, str], language: str
) -> list[str]:
    held_out = {
        normalised(text)
        for item, lines in texts.items()
        if split[item] != "train"
        for text in lines.values()
    }
    chosen: dict[str, str] = {}
    for item in sorted(texts):
        text = texts[item].get(language, "")
        key = normalised(text)
        if key and key not in held_out and len(text) <= LONGEST_TEXT:
            chosen.setdefault(key, text)
    return list(chosen.values())


def _clip(language: str, text: str) -> Clip:
    digest = hashlib.sha256(f"{language} {text}".encode()).hexdigest()[:12]
    speaker = f"espeak_{language}_{rng_of(digest).choice(VOICES)}"
    name = f"{speaker}-{digest}"
    return Clip(Utterance(name, name, text=text, language=language, speaker=speaker), "train")


def _say(speaker: Speaker, utterance: Utterance) -> np.ndarray:
    """Voice, speed and pitch are functions of the utterance's name."""
    assert utterance.text and utterance.language and utterance.speaker
    rng = rng_of(utterance.id)
    return speaker.say(
        utterance.text,
        utterance.language,
        utterance.speaker.rpartition("_")[2],
        int(rng.integers(*SPEEDS, endpoint=True)),
        int(rng.integers(*PITCHES, endpoint=True)),
    )
