"""What preparing any corpus has in common: decode once, split, write data directories."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from speechadapt.audio import SAMPLE_RATE, audio_duration, load_audio, write_flac
from speechadapt.data import Utterance, write_data_dir
from speechadapt.errors import AudioError, DataError, FetchError
from speechadapt.fetch import Archive, fetch, unpack
from speechadapt.files import write_json, write_text
from speechadapt.locks import locked
from speechadapt.progress import progress
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
Sizes = dict[str, dict[str, float]]  # clips, texts and minutes of every split


def other_release(known: Archive, name: str, sha256: str) -> Archive:
    """Another Debian release of a known package, which the user vouches for with its hash.

    Args:
        known: The release that this project has tested.
        name: File name, ``PACKAGE_VERSION_ARCHITECTURE.deb``.
        sha256: Of the file, in hex.

    Raises:
        FetchError: The name is that of another package, or the hash is none.
    """
    package, _, rest = name.removesuffix(".deb").partition("_")
    version = rest.rpartition("_")[0]
    if package != known.package or not version or not name.endswith(".deb"):
        raise FetchError(f"{name}: expected a release of the package, such as {known.name}")
    if len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef"):
        raise FetchError(f"{name}: {sha256!r} is no SHA-256; take what sha256sum prints")
    return replace(known, name=name, version=version, sha256=sha256.lower(), size=0)


def unpacked(
    archive: Archive, downloads: Path, archives: Path | None = None, name: str | None = None
) -> Path:
    """An archive's folder, fetched and unpacked if it is not there yet.

    Args:
        archive: Which.
        downloads: Where archives are kept and unpacked.
        archives: Folder of archives fetched by hand.
        name: Of the folder; None = that of the Debian package's file.

    Raises:
        FetchError: The archive cannot be had.
    """
    folder = downloads / (name or archive.name.removesuffix(".deb"))
    return folder if folder.is_dir() else unpack(fetch(archive, downloads, archives), folder)


def check_languages(asked: Iterable[str], known: Sequence[str], corpus: str) -> None:
    """Raise :class:`DataError` about languages that a corpus does not have."""
    if unknown := [language for language in asked if language not in known]:
        raise DataError(f"{corpus} has no {', '.join(unknown)}; it has {' '.join(known)}")


@contextmanager
def preparing(folder: Path, *sources: Archive) -> Iterator[None]:
    """Hold ``folder`` for one process, and for one release of the packages it is made of.

    Finished recordings of an earlier start are kept; those of another release must not be.

    Raises:
        DataError: The folder was begun with other archives.
    """
    with locked(folder):
        for source in sources:
            note = folder / f".{source.package}.sha256"
            if note.is_file() and note.read_text(encoding="utf-8").strip() != source.sha256:
                raise DataError(
                    f"{folder}: holds another release of {source.package} than {source.version}; "
                    "choose another folder or delete this one"
                )
            write_text(note, source.sha256 + "\n")
        yield


def decode_clips(
    clips: Sequence[Clip], folder: Path, nj: int, decoder: Decoder = load_audio
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Decode every clip once to 16 kHz FLAC; finished files of an earlier start are kept.

    Args:
        clips: What to decode.
        folder: Where ``<id>.flac`` goes.
        nj: Parallel threads; decoding runs outside of Python's lock, and threads die with a killed
            process, where orphaned child processes would go on writing.
        decoder: Reads an original file as 16 kHz mono samples.

    Returns:
        The clips with FLAC path and duration, and ``(id, reason)`` of those that cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (clip.utterance.audio, folder.resolve() / f"{clip.utterance.id}.flac", decoder)
        for clip in clips
    ]
    if nj < 1:
        raise DataError(f"{nj} parallel jobs; give --nj 1 or more")
    with ThreadPoolExecutor(nj) as pool:
        futures = [pool.submit(_decode, *job) for job in jobs]
        try:
            bar = progress(futures, desc=f"decode {folder.name}", unit="clip", leave=False)
            results = [future.result() for future in bar]
        finally:
            pool.shutdown(cancel_futures=True)
    usable, unusable = [], []
    for clip, job, result in zip(clips, jobs, results, strict=True):
        if isinstance(result, str):
            unusable.append((clip.utterance.id, result))
            continue
        reason = _unusable(clip.utterance.text, result)
        if reason:
            unusable.append((clip.utterance.id, reason))
        else:
            # Milliseconds, as Kaldi's own tools write them: batches are made by length, so the last
            # digit decides which adapter a recipe ends with.
            done = replace(clip.utterance, audio=str(job[1]), duration=round(result, 3))
            usable.append(Clip(done, clip.split))
    return usable, unusable


def write_corpus(
    folder: Path,
    flac: Path,
    clips: Sequence[Clip],
    licence: str,
    name: str,
    nj: int,
    *,
    decoder: Decoder = load_audio,
    splits: Sequence[str] = SPLITS,
    label: str | None = None,
    left_out: Iterable[tuple[str, str]] = (),
) -> Sizes:
    """Decode clips and write their data directories, with a report of those left out.

    Args:
        folder: Where the data directories go.
        flac: Where the decoded clips go.
        clips: Of all splits.
        licence: Content of the LICENCE files.
        name: Of the corpus, for messages.
        nj: Parallel threads.
        decoder: See :func:`decode_clips`.
        splits: Their names.
        label: What is heard in every clip, if that is to be written.
        left_out: ``(id, reason)`` of clips that were unusable before.

    Raises:
        DataError: A split is empty.
    """
    usable, unusable = decode_clips(clips, flac, nj, decoder)
    labels = {clip.utterance.id: label for clip in usable} if label else None
    sizes = write_splits(folder, usable, licence, splits, labels)
    write_report(folder, sizes, [*left_out, *unusable], name)
    return sizes


def write_splits(
    folder: Path,
    clips: Iterable[Clip],
    licence: str,
    splits: Sequence[str] = SPLITS,
    labels: Mapping[str, str] | None = None,
) -> Sizes:
    """Write ``folder/{train,dev,test}`` and return their sizes.

    Args:
        folder: Where to.
        clips: Usable ones, of all splits.
        licence: Content of the LICENCE file in every data directory.
        splits: Their names.
        labels: What is heard in every clip, by id: goes into ``utt2class``.

    Raises:
        DataError: A split is empty.
    """
    clips = list(clips)
    sizes = {}
    for split in splits:
        chosen = [clip.utterance for clip in clips if clip.split == split]
        if not chosen:
            raise DataError(f"{folder}: no usable clip for {split}; see unusable.tsv")
        extra = {"LICENCE": licence}
        if labels:
            ids = sorted((u.id for u in chosen), key=str.encode)
            extra["utt2class"] = "".join(f"{name} {labels[name]}\n" for name in ids)
        write_data_dir(folder / split, chosen, extra)
        sizes[split] = {
            "clips": len(chosen),
            "texts": len({normalised(u.text or "") for u in chosen} - {""}),
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
        print(
            f"{name}: {count} clips left out, reasons in {folder / 'unusable.tsv'}", file=sys.stderr
        )


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


def _decode(source: str, target: Path, decoder: Decoder) -> float | str:
    """Seconds of the decoded clip, or why it cannot be decoded."""
    if not target.is_file():
        try:
            samples = decoder(source)
        except AudioError as error:
            # The same list on every machine, wherever the archive was unpacked.
            return str(error).replace(source, Path(source).name)
        write_flac(target, samples)
        return len(samples) / SAMPLE_RATE
    return audio_duration(target)


def _unusable(text: str | None, seconds: float) -> str | None:
    if seconds < MINIMUM_SECONDS:
        return f"{seconds:.3f} s long"
    characters = len((text or "").strip())
    if characters and seconds / characters < MINIMUM_SECONDS_PER_CHARACTER:
        return f"{1000 * seconds / characters:.0f} ms per character of text"
    return None
