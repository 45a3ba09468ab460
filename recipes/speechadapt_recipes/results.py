"""Tables of a finished ``egs/tuxpaint/asr1``: every language, and all test sets pooled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from speechadapt.model import load
from speechadapt.store import save_adapter
from speechadapt_eval.io import read_kaldi_text
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import interval_of, paired_difference
from speechadapt_eval.transcripts.wer import ErrorRate, score
from speechadapt_recipes.corpora.splits import SPLITS
from speechadapt_recipes.runs import read_json, read_references

BASE = "openai/whisper-base"
NON_INFERIOR_MARGIN = 0.015  # absolute WER

RUNS = ("plain", "speed_150", "speed_240")  # of each language; their average is its adapter
_SILENCES = ("0", "0.25", "0.5", "1.0", "2.56", "full")
_SYSTEMS = {
    "frozen_full": "frozen, 30 s",
    "frozen_2.56": "frozen, 2.56 s of silence",
    "adapter_full": "adapter, 30 s",
    "adapter_0.5": "adapter, 0.5 s of silence",
}


def results(data: Path, exp: Path, languages: Sequence[str]) -> str:
    """Markdown tables of what ``run.sh`` has decoded; stages 6 and 7 where they have been run.

    Raises:
        EvalError: A hypothesis file is missing, or lacks an utterance.
    """
    fine_tuned = [name for name in languages if _full_text(exp, name).is_file()]
    swept = [name for name in languages if _silence_text(exp, name, "frozen", "full").is_file()]
    return "\n".join(
        [
            _error_rates(data, exp, languages),
            "Clips / distinct texts / minutes; the steps with the best development WER of the "
            f"averaged runs ({', '.join(RUNS)}), and what they took:\n\n"
            f"{_sizes(data, exp, languages)}",
            *([_yardstick(data, exp, fine_tuned)] if fine_tuned else []),
            *([_silence(data, exp, swept)] if swept else []),
        ]
    )


def _error_rates(data: Path, exp: Path, languages: Sequence[str]) -> str:
    references = {language: read_references(data / language / "test") for language in languages}
    rates = {
        language: {
            system: score(
                references[language], read_kaldi_text(exp / language / f"decode_{system}" / "text")
            )
            for system in _SYSTEMS
        }
        for language in languages
    }
    return f"{_by_language(references, exp, rates)}\n{_pooled(references, exp)}"


def _sizes(data: Path, exp: Path, languages: Sequence[str]) -> str:
    rows = []
    for language in languages:
        sizes = read_json(data / language / "splits.json")
        runs = [read_json(exp / language / f"train_{run}" / "result.json") for run in RUNS]
        left_out = (data / language / "unusable.tsv").read_text(encoding="utf-8").splitlines()[1:]
        rows.append(
            [
                language,
                *(
                    f"{sizes[split]['clips']} / {sizes[split]['texts']} / {sizes[split]['minutes']}"
                    for split in SPLITS
                ),
                f"{len(left_out)}",
                *_cost(runs),
            ]
        )
    header = ("language", *SPLITS, "left out", "step", "seconds", "GiB")
    return render(header, rows, markdown=True)


def _yardstick(data: Path, exp: Path, languages: Sequence[str]) -> str:
    """Stage 6: the adapter beside a model of which every parameter has learnt the language."""
    rows = []
    for language in languages:
        references = read_references(data / language / "test")
        adapter, full = (
            score(references, read_kaldi_text(text))
            for text in (
                exp / language / "decode_adapter_0.5" / "text",
                _full_text(exp, language),
            )
        )
        interval, delta = interval_of(full), paired_difference(adapter, full)
        run = read_json(exp / language / "finetune" / "result.json")
        rows.append(
            [
                language,
                percent(adapter.rate),
                f"{percent(full.rate)} {percent_range(interval.low, interval.high)}",
                percent_range(delta.low, delta.high, signed=True),
                *_cost([run]),
            ]
        )
    header = (
        "language",
        "WER % adapter",
        "WER % full fine-tuning, 95 % CI",
        "Δ to adapter, 95 % CI",
        "step",
        "seconds",
        "GiB",
    )
    table = render(header, rows, markdown=True)
    return f"Full fine-tuning, the yardstick, at 0.5 s of silence:\n\n{table}"


def _silence(data: Path, exp: Path, languages: Sequence[str]) -> str:
    """Stage 7: greedy without fallback, so that a decoder that does not stop shows."""
    rows = []
    for language in languages:
        references = read_references(data / language / "test")
        for system in ("frozen", "adapter"):
            texts = [
                read_kaldi_text(_silence_text(exp, language, system, silence))
                for silence in _SILENCES
            ]
            rates = [percent(score(references, text).rate) for text in texts]
            rows.append([f"{language}, {system}", *rates])
    header = ("WER %", *(f"{s} s" for s in _SILENCES[:-1]), "30 s")
    table = render(header, rows, markdown=True)
    return f"Trailing silence against WER, greedy without fallback:\n\n{table}"


def pack(data: Path, exp: Path, languages: Sequence[str], folder: Path, note: str) -> None:
    """Store the trained adapters in half precision, with their figures in the card.

    Args:
        data: Data directories of the languages.
        exp: Runs of the languages, decoded.
        languages: Which.
        folder: Adapters go to ``folder/<language>``.
        note: Commit and machine, as the card should have it.

    Raises:
        AdapterError: A run has no adapter, or it belongs to another base.
        EvalError: A hypothesis file is missing.
    """
    model = load(BASE)
    for language in languages:
        references = read_references(data / language / "test")
        texts = {
            system: read_kaldi_text(exp / language / f"decode_{system}" / "text")
            for system in _SYSTEMS
        }
        adapter = model.load_adapter(exp / language / "adapter")
        adapted = score(references, texts["adapter_0.5"])
        interval = interval_of(adapted)
        best = min(
            score(references, texts[f"frozen_{context}"]).rate for context in ("full", "2.56")
        )
        cer = score(references, texts["adapter_0.5"], unit="char").rate
        adapter.info.results = {
            "test set": f"{len(references)} clips, {adapted.n_ref} words, same voice",
            "WER": f"{percent(adapted.rate)} % {percent_range(interval.low, interval.high)}, "
            f"frozen base {percent(best)} %",
            "CER": f"{percent(cer)} %",
            "made with": note,
        }
        save_adapter(adapter, folder / language, torch.float16)


def _full_text(exp: Path, language: str) -> Path:
    return exp / language / "decode_full_finetune" / "text"


def _silence_text(exp: Path, language: str, system: str, silence: str) -> Path:
    return exp / language / f"silence_{system}_{silence}" / "text"


def _cost(runs: Sequence[dict[str, Any]]) -> list[str]:
    return [
        ", ".join(f"{run['best_step']}" for run in runs),
        f"{sum(run['seconds'] for run in runs):.0f}",
        f"{max(run['peak_memory'] for run in runs) / 2**30:.1f}",
    ]


def _by_language(
    references: dict[str, dict[str, str]], exp: Path, rates: dict[str, dict[str, ErrorRate]]
) -> str:
    rows, reductions = [], []
    for language, found in rates.items():
        best = min(found["frozen_full"], found["frozen_2.56"], key=lambda rate: rate.rate)
        adapter = found["adapter_0.5"]
        text = exp / language / "decode_adapter_0.5" / "text"
        cer = score(references[language], read_kaldi_text(text), unit="char")
        interval, delta = interval_of(adapter), paired_difference(best, adapter)
        reductions.append(-delta.delta / best.rate)
        rows.append(
            [
                language,
                f"{len(adapter.utterances)}",
                f"{adapter.n_ref}",
                percent(found["frozen_full"].rate),
                percent(found["frozen_2.56"].rate),
                percent(found["adapter_full"].rate),
                f"{percent(adapter.rate)} {percent_range(interval.low, interval.high)}",
                percent(cer.rate),
                percent_range(delta.low, delta.high, signed=True),
                f"{reductions[-1]:.0%}",
            ]
        )
    header = (
        "language",
        "clips",
        "words",
        *(f"WER % {name}" for name in list(_SYSTEMS.values())[:-1]),
        "WER % adapter, 0.5 s, 95 % CI",
        "CER %",
        "Δ to best frozen, 95 % CI",
        "relative reduction",
    )
    table = render(header, rows, markdown=True)
    return (
        f"{table}\nMean relative WER reduction against the frozen base at its better context: "
        f"{mean(reductions):.1%}; smallest {min(reductions):.1%}.\n"
    )


def _pooled(references: dict[str, dict[str, str]], exp: Path) -> str:
    """All test sets as one; a picture described in several languages is one bootstrap unit."""
    everything = {name: text for texts in references.values() for name, text in texts.items()}
    stamps = {name: name.partition("-")[2] for name in everything}
    pooled = {}
    for system in _SYSTEMS:
        hypotheses: dict[str, str] = {}
        for language in references:
            hypotheses |= read_kaldi_text(exp / language / f"decode_{system}" / "text")
        pooled[system] = score(everything, hypotheses)
    rows = []
    for system, rate in pooled.items():
        interval = interval_of(rate, stamps)
        rows.append(
            [
                _SYSTEMS[system],
                f"{len(rate.utterances)}",
                percent(rate.rate),
                percent_range(interval.low, interval.high),
            ]
        )
    short = paired_difference(pooled["adapter_full"], pooled["adapter_0.5"], stamps)
    verdict = "is" if short.non_inferior(NON_INFERIOR_MARGIN) else "is not shown to be"
    table = render(("all languages", "clips", "WER %", "95 % CI"), rows, markdown=True)
    return (
        f"{table}\nWith the adapter, 0.5 s of silence minus 30 s: "
        f"{percent(short.delta, signed=True)} points, 95 % CI "
        f"{percent_range(short.low, short.high, signed=True)} "
        f"({short.method.replace('speakers', 'pictures')}); it {verdict} "
        f"non-inferior by {100 * NON_INFERIOR_MARGIN:.1f} points.\n"
    )
