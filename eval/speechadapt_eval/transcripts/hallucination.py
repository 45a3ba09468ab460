"""Hallucination: text that nobody spoke.

On non-speech clips (no reference token after normalisation) every token of the output is one. On
speech there is no sure sign, but there are telling ones: runs of inserted tokens, loops, outputs
far longer than what was said. An empty output is the opposite failure and is counted beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.transcripts.tokens import UNITS
from speechadapt_eval.transcripts.wer import ErrorRate

RUN = 3  # inserted tokens in a row that make a run
REPEATS = 3  # times in a row that an n-gram must stand to be a loop
LENGTH_RATIO = 2.0  # tokens of output per reference token beyond which an output is too long
_LONGEST = 64  # tokens of the n-grams looked for


@dataclass(frozen=True)
class Hallucination:
    """Counts of a system on a test set; shares are NaN where nothing is there to be counted.

    Attributes:
        nonspeech: Clips without reference token.
        nonspeech_with_output: Those of them with output.
        nonspeech_tokens: Tokens that were output on them.
        nonspeech_seconds: Their duration; NaN if the duration of any is unknown.
        speech: Utterances with reference tokens.
        n_ref: Reference tokens.
        insertion_runs: Runs of at least ``RUN`` insertions in the alignments of speech.
        loops: Utterances with an n-gram at least ``REPEATS`` times in a row in the output, where
            the reference has no such loop.
        long_outputs: Utterances whose output is more than ``LENGTH_RATIO`` times the reference.
        empty_outputs: Utterances without output.
    """

    nonspeech: int
    nonspeech_with_output: int
    nonspeech_tokens: int
    nonspeech_seconds: float
    speech: int
    n_ref: int
    insertion_runs: int
    loops: int
    long_outputs: int
    empty_outputs: int

    @property
    def output_share(self) -> float:
        """Share of the non-speech clips that have output."""
        return _share(self.nonspeech_with_output, self.nonspeech)

    @property
    def tokens_per_minute(self) -> float:
        """Tokens that were output per minute of non-speech."""
        return _share(60 * self.nonspeech_tokens, self.nonspeech_seconds)

    @property
    def runs_per_100(self) -> float:
        """Insertion runs per 100 reference tokens of speech."""
        return _share(100 * self.insertion_runs, self.n_ref)

    @property
    def loop_share(self) -> float:
        """Share of the speech utterances with a loop."""
        return _share(self.loops, self.speech)

    @property
    def long_share(self) -> float:
        """Share of the speech utterances whose output is too long."""
        return _share(self.long_outputs, self.speech)

    @property
    def empty_share(self) -> float:
        """Share of the speech utterances without output."""
        return _share(self.empty_outputs, self.speech)


def hallucination(rate: ErrorRate, durations: Mapping[str, float] | None = None) -> Hallucination:
    """Count the signs of hallucination in what was scored.

    Args:
        rate: What ``score`` returned.
        durations: Utterance id to seconds of audio; only those of non-speech clips are used.

    Raises:
        EvalError: A duration is not positive.
    """
    durations = durations or {}
    clips = [u for u in rate.utterances if not u.n_ref]
    seconds = [durations.get(u.id, math.nan) for u in clips]
    if wrong := [u.id for u, s in zip(clips, seconds, strict=True) if s <= 0 or math.isinf(s)]:
        raise EvalError(f"durations must be seconds above 0: see {some(wrong)}")
    speech = [u for u in rate.utterances if u.n_ref]
    outputs = [u.n_ref - u.deletions + u.insertions for u in speech]
    runs = loops = 0
    for u, ops in rate.alignments():
        if not u.n_ref:
            continue
        if u.insertions >= RUN:
            kinds = groupby(op.kind for op in ops)
            runs += sum(kind == "insert" and len(list(run)) >= RUN for kind, run in kinds)
        split = UNITS[u.unit]
        loops += has_loop(split(u.hyp)) and not has_loop(split(u.ref))
    return Hallucination(
        nonspeech=len(clips),
        nonspeech_with_output=sum(u.insertions > 0 for u in clips),
        nonspeech_tokens=sum(u.insertions for u in clips),
        nonspeech_seconds=math.fsum(seconds) if clips else 0.0,
        speech=len(speech),
        n_ref=rate.n_ref,
        insertion_runs=runs,
        loops=loops,
        long_outputs=sum(n > LENGTH_RATIO * u.n_ref for u, n in zip(speech, outputs, strict=True)),
        empty_outputs=outputs.count(0),
    )


def has_loop(tokens: list[str]) -> bool:
    """Whether some n-gram of up to 64 tokens stands at least ``REPEATS`` times in a row."""
    if len(tokens) - len(set(tokens)) < REPEATS - 1:  # too few tokens occur twice
        return False
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(token, len(numbers)) for token in tokens])
    for n in range(1, min(len(ids) // REPEATS, _LONGEST) + 1):
        # A loop is as many tokens in a row that equal the one n places on.
        unlike = np.flatnonzero(ids[n:] != ids[:-n])
        stretches = np.diff(unlike, prepend=-1, append=len(ids) - n) - 1
        if stretches.max() >= (REPEATS - 1) * n:
            return True
    return False


def _share(count: float, total: float) -> float:
    return count / total if total else math.nan
