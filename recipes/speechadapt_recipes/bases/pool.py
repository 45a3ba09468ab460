"""Several data directories as one; for training by CTC, without what that cannot learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from speechadapt.data import Utterance, read_data_dir, write_data_dir
from speechadapt.errors import DataError
from speechadapt.heads.ctc import spoken

MOST_SECONDS = 16.0
POSITION_SECONDS = 0.02  # between the outputs of every encoder of the wav2vec2 family


def pool(data: Sequence[Path], out: Path, for_ctc: bool) -> Counter[str]:
    """Write the utterances of several data directories into one, licences too.

    Args:
        data: Data directories with transcripts.
        out: Where to.
        for_ctc: Leave out utterances longer than :data:`MOST_SECONDS`, whose text has nothing that
            can be heard, or more characters than an encoder has outputs for.

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
            reason = _unfit(utterance) if for_ctc else None
            if reason:
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


def _unfit(utterance: Utterance) -> str | None:
    if utterance.duration is None:
        raise DataError(f"utterance {utterance.id}: its directory has no utt2dur; write it first")
    if utterance.duration > MOST_SECONDS:
        return f"longer than {MOST_SECONDS:g} s"
    text = spoken(utterance.text or "")
    if not text:
        return "nothing that can be heard in the text"
    # Equal neighbours need an output that says nothing between them (Graves et al. 2006).
    needed = len(text) + sum(one == other for one, other in pairwise(text))
    if needed * POSITION_SECONDS > utterance.duration:
        return "more characters than outputs"
    return None
