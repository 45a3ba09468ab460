"""What lies behind a rate: confusions, tables by speaker, and the files of other scorers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.transcripts.tokens import UNITS
from speechadapt_eval.transcripts.wer import ErrorRate, Utterance, clusters_of

SPACE = "▁"  # stands for the space token of characters in files that separate tokens by spaces
_NOTHING = "***"  # what Kaldi's scorer writes for no word
_LETTERS = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}
SPEAKER_COLUMNS = (
    "speaker", "utterances", "sentence_errors", "n_ref", "errors", "hits", "substitutions",
    "deletions", "insertions", "rate",
)  # fmt: skip
CONFUSION_COLUMNS = ("kind", "ref", "hyp", "count")


@dataclass(frozen=True)
class Confusions:
    """How often each token was taken for which, left out, or added.

    Attributes:
        substitutions: Count of each pair of reference and hypothesis token.
        deletions: Count of each reference token that was left out.
        insertions: Count of each hypothesis token that was added.
    """

    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)

    def rows(self, most: int | None = None) -> list[tuple[str, str, str, int]]:
        """Rows of ``CONFUSION_COLUMNS``, by kind, the most frequent first.

        Args:
            most: How many of each kind; all by default.
        """
        deletions = Counter({(token, ""): n for token, n in self.deletions.items()})
        insertions = Counter({("", token): n for token, n in self.insertions.items()})
        kinds = {"substitution": self.substitutions, "deletion": deletions, "insertion": insertions}
        return [
            (kind, *pair, count)
            for kind, found in kinds.items()
            for pair, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]
        ]


def confusions(rate: ErrorRate) -> Confusions:
    """Count substitutions, deletions and insertions by token, one at a time."""
    found = Confusions()
    for _, ops in rate.alignments():
        for kind, ref, hyp in ops:
            if kind == "substitute":
                found.substitutions[ref, hyp] += 1
            elif kind == "delete":
                found.deletions[ref] += 1
            elif kind == "insert":
                found.insertions[hyp] += 1
    return found


def speaker_rows(rate: ErrorRate, speakers: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Rows of ``SPEAKER_COLUMNS``, sorted by speaker; ``rate`` is a share.

    Raises:
        EvalError: A scored utterance has no speaker.
    """
    clusters_of(rate, speakers)
    return [
        (
            speaker, len(its.utterances), its.sentence_errors, its.n_ref, its.errors, its.hits,
            its.substitutions, its.deletions, its.insertions, its.rate,
        )
        for speaker, its in sorted(rate.groups(speakers).items())
    ]  # fmt: skip


def utterance_lines(
    rate: ErrorRate,
    languages: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[str]:
    """One JSON object an utterance, with line end.

    It has the utterance's fields, then id, lang, texts as scored, unit, counts, rate (null without
    reference token) and ops: the alignment, each column a letter (C, S, D, I) with the reference
    and the hypothesis token, empty where there is none.

    Args:
        rate: What was scored.
        languages: Utterance id to language.
        fields: Utterance id to further fields.
    """
    languages, fields = languages or {}, fields or {}
    for u, ops in rate.alignments():
        row = dict(fields.get(u.id, {}))
        row |= {"id": u.id, "lang": languages.get(u.id), "ref": u.ref, "hyp": u.hyp}
        row |= {"unit": u.unit, "errors": u.errors, "n_ref": u.n_ref, "hits": u.hits}
        row |= {"substitutions": u.substitutions, "deletions": u.deletions}
        row |= {"insertions": u.insertions, "rate": u.rate if u.n_ref else None}
        row["ops"] = [(_LETTERS[op.kind], op.ref, op.hyp) for op in ops]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def kaldi_per_utt(rate: ErrorRate) -> Iterator[str]:
    """The lines of Kaldi's ``per_utt`` (``wer_per_utt_details.pl``): four an utterance.

    They are Kaldi's byte for byte if the rate was split as its ``align-text`` does.
    """
    for u, ops in rate.alignments():
        columns = [
            (_word(op.ref), _word(op.hyp), _LETTERS[op.kind]) for op in ops
        ]  # each as wide as its longest, centred
        widths = [max(map(len, column)) for column in columns]
        for row, title in enumerate(("ref ", "hyp ", "op  ")):
            cells = [_centred(column[row], w) for column, w in zip(columns, widths, strict=True)]
            yield f"{u.id} {title} {'  '.join(cells)}\n"
        yield f"{u.id} #csid {u.hits} {u.substitutions} {u.insertions} {u.deletions}\n"


def kaldi_per_spk(rate: ErrorRate, speakers: Mapping[str, str]) -> Iterator[str]:
    """The lines of Kaldi's ``per_spk`` (``wer_per_spk_details.pl``): counts and percentages.

    Args:
        rate: What was scored.
        speakers: Utterance id to speaker; the longest name sets the width, scored or not.

    Raises:
        EvalError: A scored utterance has no speaker.
    """
    clusters_of(rate, speakers)
    width = max(15, *map(len, speakers.values()))
    titles = ("#SENT", "#WORD", "Corr", "Sub", "Ins", "Del", "Err", "S.Err")
    yield f"{'SPEAKER':{width}} id  " + " ".join(f"{title:>10}" for title in titles) + "\n"
    for name, its in [*sorted(rate.groups(speakers).items()), ("SUM", rate)]:
        words, sentences = its.n_ref, len(its.utterances)
        counts = (its.hits, its.substitutions, its.insertions, its.deletions, its.errors)
        numbers = [f"{n:10d}" for n in (sentences, words)]
        raw = [*numbers, *(f"{n:10d}" for n in (*counts, its.sentence_errors))]
        yield f"{name:{width}} raw {' '.join(raw)}\n"
        if words:
            shares = [100 * n / words for n in counts]
            shares.append(100 * its.sentence_errors / sentences)
            yield f"{name:{width}} sys {' '.join([*numbers, *(f'{n:10.2f}' for n in shares)])}\n"


def trn_lines(
    rate: ErrorRate, side: str, speakers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The texts as scored, as sclite's trn: tokens, then ``(speaker-utterance)``.

    Args:
        rate: What was scored.
        side: ``ref`` or ``hyp``.
        speakers: Utterance id to speaker, put in front of ids that do not begin with it.

    Raises:
        EvalError: A token or an id means something else in that format.
    """
    for u in rate.utterances:
        tokens = _tokens(u, side)
        if odd := [t for t in tokens if t[0] in "({" or t in ("}", "/", "@") or t[:2] == ";;"]:
            raise EvalError(
                f"utterance {u.id!r}: {odd[0]!r} has a meaning of its own in trn; normalise the "
                "texts, e.g. with --normalize unicode"
            )
        speaker = (speakers or {}).get(u.id, "")
        name = u.id if not speaker or u.id.startswith(f"{speaker}-") else f"{speaker}-{u.id}"
        if set(name) & set("() \t"):
            raise EvalError(f"id {name!r} cannot be in a trn file: it has a bracket or a space")
        yield f"{' '.join(tokens)} ({name})\n"


def _tokens(utterance: Utterance, side: str) -> list[str]:
    return [SPACE if t == " " else t for t in UNITS[utterance.unit](getattr(utterance, side))]


def _word(token: str) -> str:
    return SPACE if token == " " else token or _NOTHING


def _centred(text: str, width: int) -> str:
    right = (width - len(text)) // 2
    return " " * (width - len(text) - right) + text + " " * right
