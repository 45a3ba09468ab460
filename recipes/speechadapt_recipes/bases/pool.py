"""Several data directories as one, without what a CTC model cannot learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt.errors import DataError
from speechadapt.heads.ctc import spoken

POSITION_SECONDS = 0.02  # between the outputs of every encoder of the wav2vec2 family


def pool(data: Sequence[Path], out: Path, most_seconds: float) -> Counter[str]:
    """Write the utterances of several data directories into one, licences too.

    Left out are utterances that last too long, whose text has nothing that can be heard, or more
    characters than an encoder has outputs for.

    Args:
        data: Data directories with transcripts.
        out: Where to.
        most_seconds: What an utterance may last.

    Returns:
        How many were left out, by reason.

    Raises:
        DataError: An id is in two directories, or nothing is left.
    """
    kept: dict[str, Utterance] = {}
    left_out: Counter[str] = Counter()
    for folder in data:
        for utterance in read_data_dir(folder, require_text=True):
            if utterance.id in kept:
                raise DataError(f"{folder}: {utterance.id} is in an earlier directory too")
            if reason := _unfit(utterance, most_seconds):
                left_out[reason] += 1
            else:
                kept[utterance.id] = utterance
    write_data_dir(out, kept.values(), {"LICENCE": licences(data)})
    return left_out


def licences(data: Sequence[Path]) -> str:
    """The different lines of the directories' LICENCE files."""
    files = [folder / "LICENCE" for folder in data]
    lines = [
        line
        for file in files
        if file.is_file()
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _unfit(utterance: Utterance, most_seconds: float) -> str | None:
    if utterance.duration is None:
        raise DataError(f"utterance {utterance.id}: its directory has no utt2dur; write it first")
    if utterance.duration > most_seconds:
        return f"longer than {most_seconds:g} s"
    text = spoken(utterance.text or "")
    if not text:
        return "nothing that can be heard in the text"
    # Equal neighbours need an output that says nothing between them (Graves et al. 2006).
    needed = len(text) + sum(one == other for one, other in pairwise(text))
    if needed * POSITION_SECONDS > utterance.duration:
        return "more characters than outputs"
    return None
