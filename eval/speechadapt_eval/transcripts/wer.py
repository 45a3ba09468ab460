"""Word, character and mixed error rates, matched by utterance id.

The corpus rate is all errors over all reference tokens, never a mean of utterance rates. One
aligner makes every count: other tools agree on the total but may split it into other numbers of
substitutions, deletions and insertions, so never compare those across tools.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from speechadapt_eval.errors import EvalError, choose, some
from speechadapt_eval.transcripts.align import SPLITS, Op, Pair, aligned, counts
from speechadapt_eval.transcripts.normalize import normalizer
from speechadapt_eval.transcripts.tokens import UNITS as TOKENS
from speechadapt_eval.transcripts.tokens import unit_of

UNITS = (*TOKENS, "auto")
MODES = ("strict", "present", "all")
_CHUNK = 2000  # utterances aligned at a time: bounds memory


@dataclass(frozen=True, slots=True)
class Utterance:
    """The texts of one utterance as they were scored (normalised), its counts and token unit."""

    id: str
    ref: str
    hyp: str
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    unit: str = "word"

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
        unit: ``word``, ``char``, ``mixed`` or ``auto`` (each utterance has its own).
        normalize: Name of the normaliser.
        mode: What happened to unmatched ids.
        utterances: What was scored, sorted by id.
        missing: Ids without a hypothesis: left out (mode ``present``) or taken as empty (``all``).
        extra: Ids without a reference, always left out.
        split: Whose tie-breaking, see ``transcripts.align``.
    """

    unit: str
    normalize: str
    mode: str
    utterances: tuple[Utterance, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    split: str = "jiwer"

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
        noun = self.unit if self.unit in ("word", "char") else "token"
        return (
            f"no reference {noun} in {len(self.utterances)} utterances: insertions "
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

    @cached_property
    def name(self) -> str:
        """``WER``, ``CER``, or ``MER`` (mixed) where not all tokens are of one kind."""
        units = {u.unit for u in self.utterances}
        return {"word": "WER", "char": "CER"}.get(units.pop(), "MER") if len(units) == 1 else "MER"

    def kaldi_line(self) -> str:
        """Kaldi's line: ``%WER 13.45 [ 2708 / 20138, 358 ins, 330 del, 2020 sub ]``.

        It begins with ``%CER`` for characters, ``%MER`` for mixed tokens.
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
        return next(aligned([_pair(utterance)], [utterance.id], self.split))

    def alignments(self) -> Iterator[tuple[Utterance, list[Op]]]:
        """Every utterance with its alignment; faster than one by one."""
        for start in range(0, len(self.utterances), _CHUNK):
            chunk = self.utterances[start : start + _CHUNK]
            names = [u.id for u in chunk]
            found = aligned([_pair(u) for u in chunk], names, self.split)
            yield from zip(chunk, found, strict=True)

    def groups(self, labels: Mapping[str, str]) -> dict[str, ErrorRate]:
        """The rate of the utterances of each label, in the order in which labels first occur.

        Args:
            labels: Utterance id to label (a speaker, a noise, ...), for every utterance.
        """
        members: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            members.setdefault(labels[utterance.id], []).append(utterance)
        return {
            label: replace(self, utterances=tuple(group), missing=(), extra=())
            for label, group in members.items()
        }


def score(
    refs: Mapping[str, str],
    hyps: Mapping[str, str],
    *,
    unit: str = "word",
    normalize: str = "unicode",
    mode: str = "strict",
    languages: Mapping[str, str] | None = None,
    split: str = "jiwer",
) -> ErrorRate:
    """Score hypotheses against references of the same ids.

    Args:
        refs: Utterance id to reference text, raw.
        hyps: Utterance id to hypothesis text, raw.
        unit: ``word``, ``char``, ``mixed`` or ``auto`` (see ``transcripts.tokens``).
        normalize: Name of a normaliser (see ``speechadapt_eval.transcripts.normalize``).
        mode: ``strict``: the ids must be the same; ``present``: score those in both;
            ``all``: a missing hypothesis is an empty one. Both lenient modes count what differs.
        languages: Utterance id to language code, for unit ``auto`` and for letters whose case
            depends on the language; utterances may be missing unless the unit is ``auto``.
        split: Whose tie-breaking between substitutions and pairs of an insertion and a deletion:
            ``jiwer``, ``kaldi`` or ``align-text`` (see ``transcripts.align``).

    Raises:
        EvalError: Ids differ in mode strict, nothing to score, an unknown name, or a language
            that unit ``auto`` needs is not known.
    """
    choose("unit", unit, UNITS)
    choose("mode", mode, MODES)
    choose("split", split, SPLITS)
    normalizer(normalize)  # an unknown name is refused before anything else
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
    languages = languages or {}
    if unit == "auto" and (lost := [name for name in ids if not languages.get(name)]):
        raise EvalError(
            f"unit 'auto' needs the language of each utterance, {len(lost)} have none "
            f"({some(lost)}): add them to the utt2lang map, or choose word, char or mixed"
        )
    utterances: list[Utterance] = []
    for name in ids:
        language = languages.get(name)
        its = unit_of(language) if unit == "auto" and language else unit
        clean = normalizer(normalize, language)
        try:
            ref, hyp = clean(refs[name]), clean(hyps.get(name, ""))
        except (ArithmeticError, AssertionError, ValueError) as error:  # Whisper's, on odd numbers
            raise EvalError(
                f"utterance {name!r}: normaliser {normalize!r} fails ({error!r}); correct the "
                "number in its text, or choose another normaliser"
            ) from error
        tokens = TOKENS[its]
        utterances.append(Utterance(name, ref, hyp, *counts(tokens(ref), tokens(hyp)), its))
    rate = ErrorRate(unit, normalize, mode, tuple(utterances), missing, extra, split)
    return rate if split == "jiwer" else replace(rate, utterances=tuple(_split_again(rate)))


def align(ref: str, hyp: str, unit: str = "word", split: str = "jiwer") -> list[Op]:
    """Align two texts as ``score`` does, token by token.

    Args:
        ref: Reference, already normalised.
        hyp: Hypothesis, already normalised.
        unit: ``word``, ``char`` or ``mixed``.
        split: ``jiwer``, ``kaldi`` or ``align-text``.
    """
    choose("unit", unit, TOKENS)
    return next(aligned([(TOKENS[unit](ref), TOKENS[unit](hyp))], ["text"], split))


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


def _pair(utterance: Utterance) -> Pair:
    tokens = TOKENS[utterance.unit]
    return tokens(utterance.ref), tokens(utterance.hyp)


def _split_again(rate: ErrorRate) -> Iterator[Utterance]:
    """Count again with the split asked for, where there is more than one way to split.

    Insertions less deletions are given by the lengths. So a split is a number of pairs of them
    that could be substitutions, and without two errors beyond the difference there is no pair.
    """
    ambiguous = {
        u.id: u for u in rate.utterances if u.errors - abs(u.deletions - u.insertions) >= 2
    }
    again = replace(rate, utterances=tuple(ambiguous.values()))
    for u, ops in again.alignments():
        kinds = [op.kind for op in ops]
        ambiguous[u.id] = replace(
            u,
            hits=kinds.count("equal"),
            substitutions=kinds.count("substitute"),
            deletions=kinds.count("delete"),
            insertions=kinds.count("insert"),
        )
    return (ambiguous.get(u.id, u) for u in rate.utterances)


def _percent(errors: int, total: int) -> str:
    """A percentage as Kaldi prints it: rounded to single precision first, then to two places."""
    if not total:
        return "nan"
    return f"{float(np.float32(100.0 * float(np.float32(errors)) / float(np.float32(total)))):.2f}"
