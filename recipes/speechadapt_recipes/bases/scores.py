"""Tables of what a small base gets right: words by voice, labels by kind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from speechadapt.data import Utterance, read_data_dir
from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import read_kaldi_text
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import confidence_interval, interval_of
from speechadapt_eval.transcripts.wer import score
from speechadapt_recipes.bases.categories import read_categories


def words_table(data: Path, text: Path) -> str:
    """Markdown: word and character errors of a transcribed data directory, by language and voice.

    Args:
        data: Data directory with transcripts, languages and speakers.
        text: Kaldi ``text`` file of the hypotheses.

    Raises:
        EvalError: An utterance has no hypothesis.
    """
    utterances = read_data_dir(data, require_text=True)
    hypotheses = read_kaldi_text(text)
    voices: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in utterances:
        key = (utterance.language or "", utterance.speaker or "")
        voices.setdefault(key, []).append(utterance)
    rows = [_words_row(key, voices[key], hypotheses) for key in sorted(voices)]
    rows.append(_words_row(("all", ""), utterances, hypotheses))
    header = ("language", "voice", "clips", "words", "WER %", "95 % CI", "CER %")
    return render(header, rows, align="llrrrrr", markdown=True)


def _words_row(
    key: tuple[str, str], utterances: Iterable[Utterance], hypotheses: Mapping[str, str]
) -> list[str]:
    references = {u.id: u.text or "" for u in utterances}
    chosen = {name: text for name, text in hypotheses.items() if name in references}
    words = score(references, chosen)
    interval = interval_of(words)
    return [
        *key,
        f"{len(references)}",
        f"{words.n_ref}",
        percent(words.rate),
        percent_range(interval.low, interval.high),
        percent(score(references, chosen, unit="char").rate),
    ]


def labels_table(data: Path, answers: Path) -> str:
    """Markdown: errors of ``classify`` where one label of a kind is true, and average precision.

    Kinds are what labels have before their colon. Where an utterance has one label of a kind, the
    most probable label of that kind must be that one; utterances are told apart by the rest of
    their labels. Average precision is over all utterances, its mean over all labels that occur.

    Args:
        data: Data directory with ``utt2category``.
        answers: What ``speechadapt classify --format json`` wrote of it, with all labels.

    Raises:
        EvalError: An utterance has no answer, or an answer lacks a label.
    """
    truth, found = read_categories(data), read_answers(answers)
    labels = sorted({label for true in truth.values() for label in true})
    for name in truth:
        if missing := [label for label in labels if label not in found.get(name, {})]:
            raise EvalError(
                f"{answers}: {name} has no probability of {missing[0]}; classify again with --top "
                f"{len(labels)} or more"
            )
    conditions: dict[tuple[str, str], list[bool]] = {}
    for name, true in truth.items():
        for kind in {label.partition(":")[0] for label in true}:
            mine = [label for label in true if label.startswith(f"{kind}:")]
            if len(mine) == 1:
                rest = " ".join(label for label in true if label != mine[0])
                wrong = best_label(found[name], kind) != mine[0]
                for condition in ("all", rest.partition(":")[2] if rest else "alone"):
                    conditions.setdefault((kind, condition), []).append(wrong)
    rows = []
    for kind, condition in sorted(conditions, key=lambda key: (key[0], key[1] != "all", key)):
        if kind == "scene" and condition not in ("all", "alone"):
            continue  # as many as there are languages and sounds
        rows.append([kind, condition, *error_cells(conditions[kind, condition])])
    header = ("kind", "under", "clips", "error %", "95 % CI")
    errors = render(header, rows, align="llrrr", markdown=True)
    return f"{errors}\n{_precision_table(labels, truth, found)}"


def read_answers(path: Path) -> dict[str, dict[str, float]]:
    """Probabilities by label and utterance, as ``speechadapt classify --format json`` writes them.

    Raises:
        EvalError: A line is none of those.
    """
    answers = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            answers[str(row["id"])] = {str(k): float(v) for k, v in row["labels"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvalError(
                f"{path}:{number}: no answer of classify ({error!r}); run it again"
            ) from None
    return answers


def best_label(probabilities: Mapping[str, float], kind: str) -> str:
    """The most probable of the labels that begin with ``kind:``; all, if ``kind`` is empty."""
    chosen = [label for label in probabilities if not kind or label.startswith(f"{kind}:")]
    return max(chosen, key=lambda label: (probabilities[label], label))


def error_cells(wrong: Sequence[bool]) -> list[str]:
    """How many, the error rate in percent, and its interval, as cells of a table."""
    interval = confidence_interval([int(w) for w in wrong], [1] * len(wrong))
    return [
        f"{len(wrong)}",
        percent(sum(wrong) / len(wrong)),
        percent_range(interval.low, interval.high),
    ]


def _precision_table(
    labels: Sequence[str],
    truth: Mapping[str, Sequence[str]],
    found: Mapping[str, Mapping[str, float]],
) -> str:
    rows, precisions = [], []
    for label in labels:
        true = [label in mine for mine in truth.values()]
        scores = [found[name][label] for name in truth]
        precisions.append(average_precision_score(true, scores))
        rows.append([label, f"{sum(true)}", percent(precisions[-1])])
    rows.append(["mean", f"{len(truth)}", percent(float(np.mean(precisions)))])
    return render(("label", "clips", "average precision %"), rows, markdown=True)
