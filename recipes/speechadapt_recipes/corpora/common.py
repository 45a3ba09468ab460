"""What preparing any corpus has in common: decode once, split, write data directories."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from speechadapt.audio import SAMPLE_RATE, load_audio, write_flac
from speechadapt.data import Utterance, write_data_dir
from speechadapt.errors import AudioError, DataError
from speechadapt.files import write_json, write_text
from speechadapt_recipes.corpora.splits import SPLITS, normalised

MINIMUM_SECONDS = 0.1  # shorter recordings hold no word
MINIMUM_SECONDS_PER_CHARACTER = 0.03  # nobody speaks faster: cut recording or lengthened text


@dataclass(frozen=True)
class Clip:
    """One recording of a corpus before it is decoded.

    Attributes:
        utterance: Id, text, language and speaker; its audio is the original file.
        split: ``train``, ``dev`` or ``test``.
    """

    utterance: Utterance
    split: str


Decoder = Callable[[str], np.ndarray]


def decode_clips(
    clips: Sequence[Clip], folder: Path, nj: int, decoder: Decoder = load_audio
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Decode every clip once to 16 kHz FLAC; finished files of an earlier start are kept.

    Args:
        clips: What to decode.
        folder: Where ``<id>.flac`` goes.
        nj: Parallel processes.
        decoder: Reads an original file as 16 kHz mono samples.

    Returns:
        The clips with FLAC path and duration, and ``(id, reason)`` of those that cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (clip.utterance.audio, folder.resolve() / f"{clip.utterance.id}.flac", decoder)
        for clip in clips
    ]
    with multiprocessing.get_context("spawn").Pool(nj, initializer=_ignore_interrupt) as pool:
        results = list(
            tqdm(
                pool.imap(_decode, jobs, chunksize=8),
                total=len(jobs),
                desc=f"decode {folder.name}",
                unit="clip",
                leave=False,
            )
        )
    usable, unusable = [], []
    for clip, job, result in zip(clips, jobs, results, strict=True):
        if isinstance(result, str):
            unusable.append((clip.utterance.id, result))
            continue
        reason = _unusable(clip.utterance.text, result)
        if reason:
            unusable.append((clip.utterance.id, reason))
        else:
            done = replace(clip.utterance, audio=str(job[1]), duration=result)
            usable.append(Clip(done, clip.split))
    return usable, unusable


def write_splits(folder: Path, clips: Iterable[Clip], licence: str) -> dict[str, dict[str, float]]:
    """Write ``folder/{train,dev,test}`` and return their sizes.

    Raises:
        DataError: A split is empty.
    """
    clips = list(clips)
    sizes = {}
    for split in SPLITS:
        chosen = [clip.utterance for clip in clips if clip.split == split]
        if not chosen:
            raise DataError(f"{folder}: no usable clip for {split}")
        write_data_dir(folder / split, chosen, {"LICENCE": licence})
        sizes[split] = {
            "clips": len(chosen),
            "texts": len({normalised(u.text or "") for u in chosen}),
            "minutes": round(sum(u.duration or 0.0 for u in chosen) / 60, 1),
        }
    return sizes


def write_report(
    folder: Path, sizes: object, unusable: Iterable[tuple[str, str]], name: str
) -> None:
    """Record the sizes of the splits and why which clips were left out."""
    write_json(folder / "splits.json", sizes)
    rows = "".join(f"{clip}\t{reason}\n" for clip, reason in sorted(unusable))
    write_text(folder / "unusable.tsv", "id\treason\n" + rows)
    count = rows.count("\n")
    if count:
        print(f"{name}: {count} clips left out, reasons in {folder / 'unusable.tsv'}")


def check_splits(clips: Iterable[Clip], item_of: Callable[[Utterance], str]) -> None:
    """Refuse a split in which an item, or a text in one language, is on two sides.

    Raises:
        DataError: There is a leak; names both utterances.
    """
    seen: dict[tuple[str, str], Clip] = {}
    for clip in clips:
        text = normalised(clip.utterance.text or "")
        for key in (("item", item_of(clip.utterance)), (clip.utterance.language or "", text)):
            other = seen.setdefault(key, clip)
            if other.split != clip.split and key[1]:
                raise DataError(
                    f"leak between {other.split} ({other.utterance.id}) and {clip.split} "
                    f"({clip.utterance.id}): both have {key[1]!r}"
                )


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the pool


def _decode(job: tuple[str, Path, Decoder]) -> float | str:
    """Seconds of the decoded clip, or why it cannot be decoded."""
    source, target, decoder = job
    if not target.is_file():
        try:
            samples = decoder(source)
        except AudioError as error:
            return str(error)
        write_flac(target, samples)
        return len(samples) / SAMPLE_RATE
    return soundfile.info(target).duration


def _unusable(text: str | None, seconds: float) -> str | None:
    if seconds < MINIMUM_SECONDS:
        return f"{seconds:.3f} s long"
    characters = len((text or "").strip())
    if characters and seconds / characters < MINIMUM_SECONDS_PER_CHARACTER:
        return f"{1000 * seconds / characters:.0f} ms per character of text"
    return None
