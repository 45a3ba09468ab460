"""The table of ``egs/tuxpaint/families1``: every adapter family on every backbone, alike in steps.

A run lies in ``exp/<backbone>/<language>/<preset>``: ``result.json`` and ``adapter`` as ``train``
leaves them, and of the test set ``decode/text``, or ``answers.jsonl`` where labels are asked for.
The preset ``frozen`` is the base alone. What has not been run is left out; what a backbone refuses
has the sentence that says why in ``refused``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechadapt.adapters.registry import PRESETS
from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import read_kaldi_text
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import interval_of
from speechadapt_eval.transcripts.wer import score
from speechadapt_recipes.bases.categories import TABLE, read_categories
from speechadapt_recipes.bases.scores import best_label, error_cells, read_answers
from speechadapt_recipes.runs import parameters_of, read_json, read_references

BACKBONES = {"whisper": "WER", "wav2vec2": "WER", "ast": "error"}  # and what is measured
FROZEN = "frozen"


@dataclass(frozen=True)
class Trained:
    """One family on one backbone and language.

    Attributes:
        preset: The family's preset, or :data:`FROZEN`.
        parameters: Numbers learnt, without the head.
        rate: Word errors, or wrong labels, as a share.
        interval: Of the rate, 95 %, as a cell.
        seconds: Of training.
    """

    preset: str
    parameters: int
    rate: float
    interval: str
    seconds: float


def families(data: Path, exp: Path, language: str, others: Sequence[str] = ()) -> str:
    """Markdown tables, one for each backbone, best family first.

    Args:
        data: Data directories: ``<language>/test``, and ``channels/<language>/test`` with labels.
        exp: Runs.
        language: That of the ranking.
        others: Languages that some families have been run on too.

    Raises:
        EvalError: Nothing has been run, or hypotheses lack an utterance.
    """
    parts = []
    for backbone, unit in BACKBONES.items():
        ranked = _ranked(data, exp, backbone, language)
        refused = _refused(exp, backbone, language)
        if not ranked and not refused:
            continue
        more = {
            other: {run.preset: run for run in _ranked(data, exp, backbone, other)}
            for other in others
        }
        more = {other: runs for other, runs in more.items() if runs}
        rows = [
            [
                run.preset,
                f"{run.parameters:,}",
                percent(run.rate),
                run.interval,
                f"{run.seconds:.0f}",
                *(
                    percent(runs[run.preset].rate) if run.preset in runs else ""
                    for runs in more.values()
                ),
            ]
            for run in ranked
        ]
        header = (
            *(backbone, "parameters", f"{unit} % {language}", "95 % CI", "seconds"),
            *(f"{unit} % {other}" for other in more),
        )
        parts.append(render(header, rows, markdown=True))
        parts += [f"{preset}: refused, {reason}\n" for preset, reason in refused.items()]
    if not parts:
        raise EvalError(f"{exp}: no run is finished; run the earlier stages of run.sh first")
    return "\n".join(parts)


def best(data: Path, exp: Path, backbone: str, language: str, count: int) -> list[str]:
    """Presets of the lowest error, the best first.

    Raises:
        EvalError: Fewer have been run.
    """
    ranked = [run.preset for run in _ranked(data, exp, backbone, language) if run.preset != FROZEN]
    if len(ranked) < count:
        raise EvalError(f"{exp}/{backbone}/{language}: {len(ranked)} families, {count} are wanted")
    return ranked[:count]


def _ranked(data: Path, exp: Path, backbone: str, language: str) -> list[Trained]:
    found = [_measure(data, exp, backbone, language, name) for name in (FROZEN, *PRESETS)]
    return sorted((run for run in found if run), key=lambda run: run.rate)


def _measure(data: Path, exp: Path, backbone: str, language: str, preset: str) -> Trained | None:
    folder = exp / backbone / language / preset
    text, answers = folder / "decode" / "text", folder / "answers.jsonl"
    if text.is_file():
        words = score(read_references(data / language / "test"), read_kaldi_text(text))
        interval = interval_of(words)
        rate, cell = words.rate, percent_range(interval.low, interval.high)
    elif answers.is_file():
        wrong = wrong_labels(data / "channels" / language / "test", answers)
        rate, cell = sum(wrong) / len(wrong), error_cells(wrong)[2]
    else:
        return None
    if preset == FROZEN:
        return Trained(preset, 0, rate, cell, 0.0)
    seconds = read_json(folder / "result.json")["seconds"]
    return Trained(preset, parameters_of(folder / "adapter"), rate, cell, seconds)


def wrong_labels(data: Path, answers: Path) -> list[bool]:
    """Whether the most probable label of each utterance is not its own.

    Raises:
        EvalError: An utterance has no answer.
    """
    truth, found = read_categories(data), read_answers(answers)
    if missing := sorted(set(truth) - set(found)):
        raise EvalError(f"{answers}: no answer for {missing[0]} of {data / TABLE}; classify again")
    return [best_label(found[name], "") not in labels for name, labels in truth.items()]


def _refused(exp: Path, backbone: str, language: str) -> dict[str, str]:
    files = {name: exp / backbone / language / name / "refused" for name in PRESETS}
    return {
        name: file.read_text(encoding="utf-8").strip().removeprefix("speechadapt: ")
        for name, file in files.items()
        if file.is_file()
    }
