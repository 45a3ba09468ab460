"""Speakers from the option ``--utt2spk``."""

from __future__ import annotations

import argparse

from speechadapt_eval.io import read_utt2spk


def speakers_of(args: argparse.Namespace) -> dict[str, str] | None:
    """Utterance id to speaker, from all tables given; None if there is none.

    Raises:
        EvalError: A table cannot be read.
    """
    if not args.utt2spk:
        return None
    tables = map(read_utt2spk, args.utt2spk)
    return {name: speaker for table in tables for name, speaker in table.items()}
