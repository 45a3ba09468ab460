"""Word and character error rates, matched by utterance id.

The corpus rate is all errors over all reference tokens, never a mean of utterance rates. One
aligner (jiwer) makes every count: other tools agree on the total but may split it into other
numbers of substitutions, deletions and insertions, so never compare those across tools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jiwer
import numpy as np

from speechadapt_eval.errors import EvalError, choose, some
from speechadapt_eval.transcripts.normalize import normalizer

# How a normalised text becomes tokens. Characters are code points and include the space between
# words, as in jiwer and most published figures.
UNITS: dict[str, Callable[[str], list[str]]] = {
    "word": str.split,
    "char": lambda text: list(text.strip()),
}
MODES = ("strict", "present", "all")
_CHUNK = 2000  # utterances aligned at a time: bounds the memory that jiwer's result takes


class Op(NamedTuple):
    """One column of an alignment; ``ref`` or ``hyp`` is empty where the other stands alone."""

    kind: str  # "equal", "substitute", "delete" or "insert"
    ref: str
    hyp: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """The texts of one utterance as they were scored (normalised), and its counts."""

    id: str
    ref: str
    hyp: str
    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def n_ref(self) -> int:
        """Tokens of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference token; without any token 0 or infinite."""
        if self.n_ref:
            return self.errors / self.n_ref
        return math.inf if self.errors else 0.0


@dataclass(frozen=True)
class ErrorRate:
    """Error counts of a corpus.

    Attributes:
        unit: ``word`` or ``char``.
        normalize: Name of the normaliser.
        mode: What happened to unmatched ids.
        utterances: What was scored, sorted by id.
        missing: Ids without a hypothesis: left out (mode ``present``) or taken as empty (``all``).
        extra: Ids without a reference, always left out.
    """

    unit: str
    normalize: str
    mode: str
    utterances: tuple[Utterance, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @cached_property
    def hits(self) -> int:
        """Tokens that were right."""
        return sum(u.hits for u in self.utterances)

    @cached_property
    def substitutions(self) -> int:
        """Tokens that were taken for another one."""
        return sum(u.substitutions for u in self.utterances)

    @cached_property
    def deletions(self) -> int:
        """Reference tokens without a counterpart."""
        return sum(u.deletions for u in self.utterances)

    @cached_property
    def insertions(self) -> int:
        """Hypothesis tokens without a counterpart."""
        return sum(u.insertions for u in self.utterances)

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def n_ref(self) -> int:
        """Tokens of all references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference token (may exceed 1); NaN if the references hold no token."""
        return self.errors / self.n_ref if self.n_ref else math.nan

    @property
    def reason(self) -> str:
        """Why the rate is NaN, or an empty string."""
        if self.n_ref:
            return ""
        return (
            f"no reference {self.unit} in {len(self.utterances)} utterances: insertions "
            f"({self.insertions}) can be counted, a rate cannot"
        )

    @cached_property
    def sentence_errors(self) -> int:
        """Utterances with at least one error."""
        return sum(u.errors > 0 for u in self.utterances)

    @property
    def sentence_rate(self) -> float:
        """Share of the utterances that have an error; NaN without utterances."""
        return self.sentence_errors / len(self.utterances) if self.utterances else math.nan

    @property
    def name(self) -> str:
        """``WER`` or ``CER``."""
        return "CER" if self.unit == "char" else "WER"

    def kaldi_line(self) -> str:
        """Kaldi's line: ``%WER 13.45 [ 2708 / 20138, 358 ins, 330 del, 2020 sub ]``.

        For characters it begins with ``%CER``.
        """
        return (
            f"%{self.name} {_percent(self.errors, self.n_ref)} [ {self.errors} / {self.n_ref}, "
            f"{self.insertions} ins, {self.deletions} del, {self.substitutions} sub ]"
            + (" [PARTIAL]" if self.missing else "")
        )

    def kaldi_lines(self) -> str:
        """The three lines of Kaldi's scorer: the rate, the sentence error rate, the counts."""
        count = len(self.utterances)
        return (
            f"{self.kaldi_line()}\n"
            f"%SER {_percent(self.sentence_errors, count)} [ {self.sentence_errors} / {count} ]\n"
            f"Scored {count} sentences, {len(self.missing)} not present in hyp."
        )

    def alignment(self, utterance: Utterance) -> list[Op]:
        """The alignment behind an utterance's counts, token by token."""
        return align(utterance.ref, utterance.hyp, self.unit)


def score(
    refs: Mapping[str, str],
    hyps: Mapping[str, str],
    *,
    unit: str = "word",
    normalize: str = "unicode",
    mode: str = "strict",
) -> ErrorRate:
    """Score hypotheses against references of the same ids.

    Args:
        refs: Utterance id to reference text, raw.
        hyps: Utterance id to hypothesis text, raw.
        unit: ``word`` or ``char`` (code points of the normalised text, spaces included).
        normalize: Name of a normaliser (see ``speechadapt_eval.transcripts.normalize``).
        mode: ``strict``: the ids must be the same; ``present``: score those in both;
            ``all``: a missing hypothesis is an empty one. Both lenient modes count what differs.

    Raises:
        EvalError: Ids differ in mode strict, nothing to score, or an unknown name.
    """
    choose("unit", unit, UNITS)
    choose("mode", mode, MODES)
    clean = normalizer(normalize)
    missing = tuple(sorted(refs.keys() - hyps.keys()))
    extra = tuple(sorted(hyps.keys() - refs.keys()))
    if mode == "strict" and (missing or extra):
        raise EvalError(
            "references and hypotheses differ: "
            + "; ".join(
                f"{len(ids)} ids have no {what} ({some(ids)})"
                for ids, what in ((missing, "hypothesis"), (extra, "reference"))
                if ids
            )
            + "; choose mode 'present' or 'all' to score them nevertheless"
        )
    ids = sorted(refs if mode == "all" else refs.keys() & hyps.keys())
    if not ids:
        raise EvalError("nothing to score: references and hypotheses have no utterance in common")
    utterances: list[Utterance] = []
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        ref = [clean(refs[name]) for name in chunk]
        hyp = [clean(hyps.get(name, "")) for name in chunk]
        aligned = _process(ref, hyp, unit).alignments
        utterances += map(_utterance, chunk, ref, hyp, aligned)
    return ErrorRate(unit, normalize, mode, tuple(utterances), missing, extra)


def align(ref: str, hyp: str, unit: str = "word") -> list[Op]:
    """Align two texts as ``score`` does, token by token.

    Args:
        ref: Reference, already normalised.
        hyp: Hypothesis, already normalised.
        unit: ``word`` or ``char``.
    """
    output = _process([ref], [hyp], unit)
    left, right = output.references[0], output.hypotheses[0]
    ops: list[Op] = []
    for part in output.alignments[0]:
        refs = left[part.ref_start_idx : part.ref_end_idx]
        hyps = right[part.hyp_start_idx : part.hyp_end_idx]
        length = max(len(refs), len(hyps))
        refs, hyps = refs or [""] * length, hyps or [""] * length
        ops += (Op(part.type, r, h) for r, h in zip(refs, hyps, strict=True))
    return ops


def clusters_of(rate: ErrorRate, clusters: Mapping[str, str] | None) -> list[str] | None:
    """The cluster of each scored utterance, in their order.

    Raises:
        EvalError: An utterance has none.
    """
    if clusters is None:
        return None
    lost = [u.id for u in rate.utterances if u.id not in clusters]
    if lost:
        raise EvalError(
            f"{len(lost)} scored utterances have no speaker ({some(lost)}): add them to the "
            "utt2spk map, or score without it"
        )
    return [clusters[u.id] for u in rate.utterances]


def require_same_utterances(a: ErrorRate, b: ErrorRate) -> None:
    """Check that two systems can be compared utterance by utterance.

    Raises:
        EvalError: Ids, references, units or normalisers differ.
    """
    if (a.unit, a.normalize) != (b.unit, b.normalize):
        raise EvalError(
            f"cannot compare {a.unit}s normalised as {a.normalize!r} with {b.unit}s normalised as "
            f"{b.normalize!r}: score both systems alike"
        )
    if odd := {u.id for u in a.utterances} ^ {u.id for u in b.utterances}:
        raise EvalError(
            f"the systems were scored on different utterances: {len(odd)} ids are in one only "
            f"({some(odd)}); score both on the same ones"
        )
    for x, y in zip(a.utterances, b.utterances, strict=True):
        if x.ref != y.ref:
            raise EvalError(
                f"the systems were scored against different references, first at {x.id!r}; "
                "use one reference file for both"
            )


class _Tokens(jiwer.AbstractTransform):
    """Makes jiwer see our tokens: its own default would also rewrite the texts."""

    def __init__(self, unit: str):
        self.split = UNITS[unit]

    def __call__(self, sentences: str | list[str]) -> list[list[str]]:
        return [self.split(sentence) for sentence in sentences]


def _process(refs: list[str], hyps: list[str], unit: str) -> jiwer.WordOutput:
    tokens = _Tokens(unit)
    return jiwer.process_words(refs, hyps, tokens, tokens)


def _utterance(name: str, ref: str, hyp: str, parts: Sequence[jiwer.AlignmentChunk]) -> Utterance:
    counts = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for part in parts:
        counts[part.type] += max(
            part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx
        )
    return Utterance(name, ref, hyp, *counts.values())


def _percent(errors: int, total: int) -> str:
    """A percentage as Kaldi prints it: rounded to single precision first, then to two places."""
    if not total:
        return "nan"
    return f"{float(np.float32(100.0 * float(np.float32(errors)) / float(np.float32(total)))):.2f}"
