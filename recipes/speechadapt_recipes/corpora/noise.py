"""Noise for mixtures: generated (white, pink, brown, hum) and Tux Paint's sound effects (GPL-2).

A generated noise is a function of its name alone, so it is the same on every machine (but for the
last bit). Sound effects are animals, tools, instruments…, their class is the folder they come from.
Files are kept apart whole: the side of a sound effect depends on its bytes, so copies follow.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from speechadapt.audio import SAMPLE_RATE
from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt_recipes.corpora import tuxpaint
from speechadapt_recipes.corpora.common import (
    Clip,
    Sizes,
    decode_clips,
    preparing,
    write_report,
    write_splits,
)
from speechadapt_recipes.corpora.draws import rng_of

KINDS = ("white", "pink", "brown", "hum")
SECONDS = 30.0
COUNTS = {"train": 8, "test": 4}  # files of each kind
TEST_SHARE = 1 / 3  # of the sound effects
LOUDNESS = 0.1  # root mean square of generated noise, 20 dB below full scale
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with this power of frequency
_LOWEST = 20.0  # Hz; below it brown noise would be all drift and no sound
_LANGUAGE = re.compile(r"_[a-z]{2}(_[A-Za-z]{2})?$")


def prepare(
    folder: Path,
    downloads: Path,
    archives: Path | None = None,
    nj: int = 2,
    effects: bool = True,
) -> Sizes:
    """Write ``folder/{train,test}`` data directories without transcripts; classes in ``utt2class``.

    Args:
        folder: Where to.
        downloads: Where archives are kept and unpacked.
        archives: Folder of archives fetched by hand.
        nj: Parallel threads.
        effects: Whether Tux Paint's sound effects belong to it; without them nothing is fetched.

    Raises:
        FetchError: The archive cannot be had.
    """
    licence = "Generated noise: free of rights\n"
    with preparing(folder, *([tuxpaint.RELEASES[0]] if effects else [])):
        usable, unusable = decode_clips(generated(), folder / "flac" / "generated", nj, generate)
        labels = {clip.utterance.id: clip.utterance.id.split("-")[1] for clip in usable}
        if effects:
            found = sound_effects(tuxpaint.stamps_folder(downloads, archives))
            more, left_out = decode_clips([*found], folder / "flac" / "effects", nj)
            usable, unusable = usable + more, unusable + left_out
            labels |= {clip.utterance.id: label for clip, label in found.items()}
            licence += tuxpaint.LICENCE.format(version=tuxpaint.RELEASES[0].version)
        sizes = write_splits(folder, usable, licence, tuple(COUNTS), labels)
        write_report(folder, sizes, unusable, "noise")
    return sizes


def generated() -> list[Clip]:
    """Names of the noises to generate; the test set's have numbers of their own."""
    clips = []
    for kind in KINDS:
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        for number, split in enumerate(splits):
            name = f"noise-{kind}-{number:03}"
            clips.append(Clip(Utterance(name, name), split))
    return clips


def generate(name: str) -> np.ndarray:
    """The noise of a name such as ``noise-pink-003``: float32 in [-1, 1], ``[samples]``, 30 s.

    Raises:
        DataError: No such kind.
    """
    kind = name.split("-")[1] if name.count("-") == 2 else ""
    if kind not in KINDS:
        raise DataError(f"{name}: no such noise; the kinds are {', '.join(KINDS)}")
    rng = rng_of(name)
    count = round(SECONDS * SAMPLE_RATE)
    if kind == "hum":
        wave = _hum(rng, count)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(count))
        frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
        spectrum *= np.maximum(frequency, _LOWEST) ** -_SLOPES[kind] * (frequency >= _LOWEST)
        wave = np.fft.irfft(spectrum, count)
    wave *= LOUDNESS / np.sqrt(np.mean(wave**2))
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


def _hum(rng: np.random.Generator, count: int) -> np.ndarray:
    """Mains of 50 or 60 Hz that wanders by a tenth of a hertz, with harmonics that fade upwards."""
    time = np.arange(count) / SAMPLE_RATE
    drift = 0.1 * np.sin(2 * np.pi * rng.uniform(0.02, 0.1) * time + rng.uniform(0, 2 * np.pi))
    phase = 2 * np.pi * np.cumsum(rng.choice([50.0, 60.0]) + drift) / SAMPLE_RATE
    wave = np.zeros(count)
    for harmonic in range(1, 21):
        strength = rng.uniform(0.3, 1.0) / harmonic
        wave += strength * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    return wave


def sound_effects(stamps: Path) -> dict[Clip, str]:
    """Recordings of stamps that speak no text, with their class, the folder of the stamp.

    Descriptions are speech, so is everything below ``symbols`` (letters and digits) and whatever
    has a language in its name.
    """
    found = {}
    for audio in sorted([*stamps.rglob("*.ogg"), *stamps.rglob("*.wav")]):
        path = audio.relative_to(stamps).with_suffix("")
        if path.parts[0] == "symbols" or "_desc" in path.name or _LANGUAGE.search(path.name):
            continue
        draw = int.from_bytes(hashlib.sha256(audio.read_bytes()).digest()[:8], "big") / 2**64
        name = f"effect-{path.as_posix().replace('/', '_')}"
        clip = Clip(Utterance(name, str(audio)), "test" if draw < TEST_SHARE else "train")
        found[clip] = "/".join(path.parts[:-1][:2])
    return found
