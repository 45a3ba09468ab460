"""A classification task made of any corpus: which channel an utterance came through.

Every utterance goes through one of :data:`~speechadapt_recipes.corpora.channels.CHANNELS`, drawn by
a hash of its id; which one is its label in ``utt2category``. Voice and words say nothing about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from speechadapt.audio import load_audio
from speechadapt.data import Utterance, read_data_dir
from speechadapt_recipes.bases.categories import write_categories
from speechadapt_recipes.bases.pool import licences
from speechadapt_recipes.corpora.channels import CHANNELS
from speechadapt_recipes.corpora.common import Clip, decode_clips
from speechadapt_recipes.corpora.draws import rng_of
from speechadapt_recipes.corpora.splits import SPLITS


def prepare(data: Path, folder: Path, nj: int = 2) -> dict[str, Counter[str]]:
    """Write ``folder/{train,dev,test}`` with ``utt2category``; returns the clips of each label.

    Args:
        data: Has ``train``, ``dev`` and ``test`` data directories.
        folder: Where to.
        nj: Parallel threads.

    Raises:
        DataError: A data directory is missing or breaks its format.
    """
    counts = {}
    for split in SPLITS:
        utterances = {utterance.id: utterance for utterance in read_data_dir(data / split)}
        named = [Clip(Utterance(u.id, u.id, speaker=u.speaker), split) for u in utterances.values()]
        made, _ = decode_clips(named, folder / "flac" / split, nj, partial(_through, utterances))
        labels = {name: (f"channel:{channel_of(name)}",) for name in utterances}
        counts[split] = write_categories(
            folder / split, [clip.utterance for clip in made], labels, licences([data / split])
        )
    return counts


def channel_of(name: str) -> str:
    """The channel of an utterance."""
    return str(rng_of(f"channel {name}").choice(sorted(CHANNELS)))


def _through(utterances: Mapping[str, Utterance], name: str) -> np.ndarray:
    utterance = utterances[name]
    wave = load_audio(utterance.audio, utterance.start, utterance.end)
    return CHANNELS[channel_of(name)](wave, rng_of(name))
