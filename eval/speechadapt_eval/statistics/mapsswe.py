"""The matched pairs sentence segment word error test (MAPSSWE) of two systems.

Gillick and Cox, "Some Statistical Issues in the Comparison of Speech Recognition Algorithms",
ICASSP 1989, as NIST's ``sc_stats`` computes it. The texts are cut into segments whose errors may be
taken as independent: a segment opens at an error of either system and closes after two reference
words running that both have right, or with the utterance. The differences in errors, segment by
segment, are tested against a mean of 0.

Segments of one speaker are no more independent than that speaker's utterances: the test asks
whether the systems differ on these speakers, not on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from speechadapt_eval.transcripts.wer import ErrorRate, Op, require_same_utterances

GOOD_WORDS = 2  # both systems must have right before a segment ends: the default of sc_stats


@dataclass(frozen=True)
class Mapsswe:
    """What the test found; differences are errors of A less errors of B: positive, B is better.

    Attributes:
        segments: How many there are.
        errors_a: Errors of A in all segments.
        errors_b: Errors of B in all segments.
        mean: Of the differences, errors a segment; NaN without a segment.
        sd: Their standard deviation (n - 1 in the denominator); NaN below two segments.
        z: ``mean / (sd / sqrt(segments))``; infinite where all segments differ alike, 0 where none
            differs at all, NaN below two segments.
        p: Two-sided, from the normal distribution; NaN as ``z``.
    """

    segments: int
    errors_a: int
    errors_b: int
    mean: float
    sd: float
    z: float
    p: float


def mapsswe(a: ErrorRate, b: ErrorRate) -> Mapsswe:
    """Test two systems that were scored on the same utterances.

    Raises:
        EvalError: Ids, references or units of the two differ.
    """
    require_same_utterances(a, b)
    pairs = (
        pair
        for x, y in zip(a.utterances, b.utterances, strict=True)
        if x.errors or y.errors  # an utterance without errors has no segment: spare the aligning
        for pair in segments(a.alignment(x), b.alignment(y))
    )
    return of_segments(list(pairs))


def segments(a: Sequence[Op], b: Sequence[Op]) -> Iterator[tuple[int, int]]:
    """Yield the errors of both systems in each segment of an utterance.

    Args:
        a: Alignment of A with the reference.
        b: Alignment of B with the same reference.
    """
    inside, good, errors = False, 0, [0, 0]
    for place, wrong in enumerate(zip(_errors(a), _errors(b), strict=True)):
        if any(wrong):
            inside, good = True, 0
            errors = [total + new for total, new in zip(errors, wrong, strict=True)]
        elif inside and place % 2:
            good += 1
        if good == GOOD_WORDS:
            yield errors[0], errors[1]
            inside, good, errors = False, 0, [0, 0]
    if inside:
        yield errors[0], errors[1]


def of_segments(pairs: Sequence[tuple[int, int]]) -> Mapsswe:
    """Test the errors of two systems in segments.

    Args:
        pairs: Errors of A and of B, for each segment.
    """
    errors = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    gain = errors[:, 0] - errors[:, 1]
    count = len(gain)
    mean = float(gain.mean()) if count else math.nan
    sd = float(gain.std(ddof=1)) if count > 1 else math.nan
    if count < 2:
        z = math.nan
    elif sd:
        z = mean / (sd / math.sqrt(count))
    else:
        z = math.copysign(math.inf, mean) if mean else 0.0
    p = math.erfc(abs(z) / math.sqrt(2))
    return Mapsswe(count, int(errors[:, 0].sum()), int(errors[:, 1].sum()), mean, sd, z, p)


def _errors(ops: Sequence[Op]) -> list[int]:
    """Errors ``[2 * words + 1]``: at odd places in reference words, at even ones between them."""
    counts = [0]
    for op in ops:
        if op.kind == "insert":
            counts[-1] += 1
        else:
            counts += [int(op.kind != "equal"), 0]
    return counts
