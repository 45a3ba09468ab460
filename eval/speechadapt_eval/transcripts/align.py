"""Alignment of two token sequences, with the fewest errors.

Several alignments may have as few. ``jiwer`` is the one of RapidFuzz, as jiwer makes it; ``kaldi``
that of Kaldi's ``compute-wer``, which prints the %WER line; ``align-text`` that of Kaldi's program
of this name, on which its ``per_utt`` and ``per_spk`` rest. The totals are the same, the split
into substitutions, deletions and insertions is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from speechadapt_eval.errors import EvalError, choose

SPLITS = ("jiwer", "kaldi", "align-text")
_MATCH, _DELETE, _INSERT = range(3)
_CELLS = 4_000_000  # of the tables computed at a time
_MOST_CELLS = 1_000_000_000  # of one table: one byte each
Pair = tuple[list[str], list[str]]


class Op(NamedTuple):
    """One column of an alignment; ``ref`` or ``hyp`` is empty where the other stands alone."""

    kind: str  # "equal", "substitute", "delete" or "insert"
    ref: str
    hyp: str


def counts(ref: list[str], hyp: list[str]) -> tuple[int, int, int, int]:
    """Hits, substitutions, deletions and insertions of jiwer's alignment."""
    if ref == hyp:
        return len(ref), 0, 0, 0
    tags = [edit.tag for edit in Levenshtein.editops(ref, hyp)]
    substitutions, deletions = tags.count("replace"), tags.count("delete")
    hits = len(ref) - substitutions - deletions
    return hits, substitutions, deletions, len(tags) - substitutions - deletions


def aligned(pairs: Sequence[Pair], names: Sequence[str], split: str) -> Iterator[list[Op]]:
    """Align each pair of reference and hypothesis tokens, in their order.

    Args:
        pairs: Reference and hypothesis tokens of each utterance.
        names: What to call the utterances in an error.
        split: One of ``SPLITS``.

    Raises:
        EvalError: An utterance is too long for Kaldi's splits, which need a table of its size.
    """
    choose("split", split, SPLITS)
    if split != "jiwer":
        yield from _kaldi(pairs, names, split)
        return
    for ref, hyp in pairs:
        ops: list[Op] = []
        for part in Levenshtein.opcodes(ref, hyp):
            left = ref[part.src_start : part.src_end]
            right = hyp[part.dest_start : part.dest_end]
            if part.tag == "delete":
                ops += [Op("delete", token, "") for token in left]
            elif part.tag == "insert":
                ops += [Op("insert", "", token) for token in right]
            else:
                kind = "equal" if part.tag == "equal" else "substitute"
                ops += [Op(kind, *both) for both in zip(left, right, strict=True)]
        yield ops


def _kaldi(pairs: Sequence[Pair], names: Sequence[str], split: str) -> Iterator[list[Op]]:
    """Align pairs of like size together, a few million cells at a time."""
    sizes = [(len(hyp) + 1, len(ref) + 1) for ref, hyp in pairs]
    for name, (rows, columns) in zip(names, sizes, strict=True):
        if rows * columns > _MOST_CELLS:
            raise EvalError(
                f"utterance {name!r}: {columns - 1} × {rows - 1} tokens are too many for split "
                f"{split!r}; take jiwer's, the total is the same"
            )
    done: dict[int, list[Op]] = {}
    batch: list[int] = []
    height = width = 0
    for index in sorted(range(len(pairs)), key=sizes.__getitem__):
        rows, columns = max(height, sizes[index][0]), max(width, sizes[index][1])
        if batch and rows * columns * (len(batch) + 1) > _CELLS:
            done |= _kaldi_batch(pairs, batch, split)
            batch, (rows, columns) = [], sizes[index]
        batch.append(index)
        height, width = rows, columns
    done |= _kaldi_batch(pairs, batch, split)
    for index in range(len(pairs)):
        yield done.pop(index)


def _kaldi_batch(pairs: Sequence[Pair], batch: list[int], split: str) -> dict[int, list[Op]]:
    tables = _moves([pairs[index] for index in batch], split) if batch else ()
    return {index: _trace(*pairs[index], table) for index, table in zip(batch, tables, strict=True)}


def _moves(pairs: Sequence[Pair], split: str) -> np.ndarray:
    """The last move of the best path to each cell, ``[pairs, hyp tokens + 1, ref tokens + 1]``.

    Of moves that cost the same, compute-wer takes an insertion before a deletion before a match or
    substitution, align-text the other way round (``LevenshteinEditDistance`` with counts and
    ``LevenshteinAlignment`` of Kaldi's util/edit-distance-inl.h). Short sequences are padded; what
    is beyond their ends has no influence on what is before.
    """
    numbers: dict[str, int] = {}
    ref = np.full((len(pairs), max(len(ref) for ref, _ in pairs)), -1)
    hyp = np.full((len(pairs), max(len(hyp) for _, hyp in pairs)), -2)
    for row, sides in enumerate(pairs):
        for table, tokens in zip((ref, hyp), sides, strict=True):
            table[row, : len(tokens)] = [numbers.setdefault(t, len(numbers)) for t in tokens]
    columns = np.arange(ref.shape[1] + 1)
    moves = np.empty((len(pairs), hyp.shape[1] + 1, len(columns)), dtype=np.uint8)
    moves[:, 0], moves[:, :, 0] = _DELETE, _INSERT
    cost = np.tile(columns, (len(pairs), 1))
    for row in range(hyp.shape[1]):
        insert = cost + 1
        match = cost[:, :-1] + (ref != hyp[:, row, None])
        cost = insert.copy()
        np.minimum(cost[:, 1:], match, out=cost[:, 1:])
        # A run of deletions may follow: cost[j] = min over i <= j of cost[i] + j - i.
        cost = np.minimum.accumulate(cost - columns, axis=1) + columns
        insert, delete = insert[:, 1:], cost[:, :-1] + 1
        if split == "kaldi":
            matched, deleted = match < np.minimum(insert, delete), delete < insert
        else:
            matched, deleted = match <= np.minimum(insert, delete), delete <= insert
        alone = np.where(deleted, _DELETE, _INSERT)
        moves[:, row + 1, 1:] = np.where(matched, _MATCH, alone)
    return moves


def _trace(ref: list[str], hyp: list[str], moves: np.ndarray) -> list[Op]:
    ops: list[Op] = []
    i, j = len(ref), len(hyp)
    while i or j:
        move = moves[j, i]
        if move == _MATCH:
            i, j = i - 1, j - 1
            ops.append(Op("equal" if ref[i] == hyp[j] else "substitute", ref[i], hyp[j]))
        elif move == _DELETE:
            i -= 1
            ops.append(Op("delete", ref[i], ""))
        else:
            j -= 1
            ops.append(Op("insert", "", hyp[j]))
    return ops[::-1]
