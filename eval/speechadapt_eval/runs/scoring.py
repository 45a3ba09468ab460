"""The figures of a run: error rates, paired differences, speed.

Each is a table of the run's folder (see ``folder.TABLES``): rates and differences are shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechadapt_eval.io import Row
from speechadapt_eval.report.systems import NOTHING
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.runs.folder import Decoding, Run
from speechadapt_eval.speed.timing import percentiles
from speechadapt_eval.statistics.bootstrap import interval_of, paired_difference
from speechadapt_eval.transcripts.wer import ErrorRate, score

_ALWAYS = ("word", "char")  # units of ``tables/wer.csv``, beside the one to compare by
HEADER = (
    *("system", "set", "WER %", "95 % CI", "CER %", "Δ {}", "Δ 95 % CI", "P(better)"),
    *("RTF", "p95 s", "failed"),
)


@dataclass(frozen=True)
class Scoring:
    """How texts are scored.

    Attributes:
        normalize: Name of a normaliser.
        unit: What systems are compared by; both rates are given in any case.
        samples: Bootstrap replicates.
        seed: Of the bootstrap.
    """

    normalize: str = "unicode"
    unit: str = "word"
    samples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """Rows of the tables, by column, in the order of the run.

    Attributes:
        wer: Error rates; none of a set without references.
        pairs: Differences to the first system.
        speed: Speed of each system on each set.
        failed: System and set to clips that failed and count as empty.
        notes: What the figures do not say.
    """

    wer: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    speed: list[dict[str, Any]]
    failed: dict[tuple[str, str], int]
    notes: list[str]


def score_run(run: Run, scoring: Scoring = Scoring()) -> Figures:
    """Score what a run transcribed.

    Raises:
        EvalError: A file of the run is damaged, or systems transcribed different utterances.
    """
    wer, pairs, speed, failed = [], [], [], {}
    notes: dict[str, None] = {}
    baseline = run.systems[0].name
    firsts: dict[str, ErrorRate] = {}
    for system, one in run.decoded():
        rows = run.rows(system.name, one.name)
        where = {"system": system.name, "set": one.name}
        speed.append(where | speed_of(run.decoding(system.name, one.name), rows.values()))
        if faults := sum("error" in row.fields for row in rows.values()):
            failed[system.name, one.name] = faults
        refs = {name: row.ref for name, row in rows.items() if row.ref is not None}
        if not refs:
            notes[f"{one.name} has no references, so no error rate."] = None
            continue
        if lost := len(rows) - len(refs):
            notes[f"{one.name}: {lost} of {len(rows)} utterances have no reference."] = None
        hyps = {name: rows[name].hyp or "" for name in refs}
        speakers = speakers_of([rows[name] for name in refs])
        options = {"samples": scoring.samples, "seed": scoring.seed}
        languages = languages_of(rows, one.language)
        for unit in dict.fromkeys((*_ALWAYS, scoring.unit)):
            rate = score(refs, hyps, unit=unit, normalize=scoring.normalize, languages=languages)
            interval = interval_of(rate, speakers, **options)
            wer.append(
                where
                | {name: getattr(rate, name) for name in ("unit", "errors", "n_ref", "rate")}
                | {n: getattr(rate, n) for n in ("substitutions", "deletions", "insertions")}
                | {name: getattr(interval, name) for name in ("low", "high", "method", "note")}
                | {"lang": one.language, "utterances": len(refs)}
                | {"speakers": len(set(speakers.values())) if speakers else None}
                | {"normalizer": scoring.normalize}
            )
            if unit != scoring.unit:
                continue
            notes[f"CI of {one.name}: " + _joined(interval.method, interval.note)] = None
            if system.name == baseline:
                firsts[one.name] = rate
            elif one.name in firsts:
                paired = paired_difference(firsts[one.name], rate, speakers, **options)
                facts = ("delta", "low", "high", "p_improvement", "level", "method", "note")
                pairs.append(
                    {"baseline": baseline} | where
                    | {name: getattr(paired, name) for name in facts}
                    | {"unit": unit, "utterances": len(refs)}
                )  # fmt: skip
    return Figures(wer, pairs, speed, failed, list(notes))


def write_figures(run: Run, figures: Figures) -> None:
    """Write the tables into the run's folder.

    Raises:
        EvalError: One cannot be written.
    """
    for name in ("wer", "pairs", "speed"):
        run.write_table(name, getattr(figures, name))


def speed_of(took: Decoding, rows: Iterable[Row]) -> dict[str, Any]:
    """Real-time factor and, where each clip has its own time, percentiles in seconds."""
    audio, seconds = took.audio_seconds, took.seconds
    rtf = seconds / audio if seconds is not None and audio else math.nan
    rows = [row for row in rows if "error" not in row.fields]
    own = [s for row in rows if isinstance(s := row.fields.get("seconds"), int | float)]
    p50, p95, p99 = percentiles(own if len(own) == len(rows) else [])
    return {
        "audio_seconds": audio,
        "seconds": seconds,
        "rtf": rtf,
        "rtfx": 1 / rtf if rtf else math.nan,
        **{"p50": p50, "p95": p95, "p99": p99},
        "batched": took.batched,
        "load_average": took.load_average,
        "peak_memory_bytes": took.peak_memory_bytes,
        "cpu_joules": took.cpu_joules,
        "gpu_joules": took.gpu_joules,
    }


def languages_of(rows: Mapping[str, Row], language: str | None) -> dict[str, str]:
    """Language of each utterance by id: its own, or that of the set; those of none are left out."""
    known = {name: row.lang or language for name, row in rows.items()}
    return {name: lang for name, lang in known.items() if lang}


def speakers_of(rows: Sequence[Row]) -> dict[str, str] | None:
    """Speaker of each utterance by id; None unless all have one."""
    speakers = {row.id: row.fields.get("speaker") for row in rows}
    known = {name: who for name, who in speakers.items() if isinstance(who, str)}
    return known if len(known) == len(rows) else None


def render_figures(run: Run, figures: Figures) -> str:
    """The comparison as a table for a terminal, and what it does not say."""
    rates = {(row["system"], row["set"], row["unit"]): row for row in figures.wer}
    pairs = {(row["system"], row["set"]): row for row in figures.pairs}
    body = []
    order = {one.name: index for index, one in enumerate(run.sets)}
    for row in sorted(figures.speed, key=lambda row: order[row["set"]]):
        where = row["system"], row["set"]
        word, char = rates.get((*where, "word")), rates.get((*where, "char"))
        pair = pairs.get(where)
        body.append(
            [
                *where,
                _cell(word, "rate", percent),
                NOTHING if word is None else percent_range(word["low"], word["high"]),
                _cell(char, "rate", percent),
                NOTHING if pair is None else percent(pair["delta"], signed=True),
                NOTHING if pair is None else percent_range(pair["low"], pair["high"], signed=True),
                _cell(pair, "p_improvement", lambda p: f"{p:.4f}"),
                _cell(row, "rtf", lambda rtf: f"{rtf:.3f}"),
                _cell(row, "p95", lambda p95: f"{p95:.3f}"),
                str(figures.failed.get(where, 0)),
            ]
        )
    compared = "CER" if any(row["unit"] == "char" for row in figures.pairs) else "WER"
    header = [title.format(compared) for title in HEADER]
    return render(header, body, align="ll" + "r" * 9) + "".join(f"\n{n}" for n in figures.notes)


def _cell(row: Mapping[str, Any] | None, name: str, form: Callable[[float], str]) -> str:
    if row is None or row[name] is None or math.isnan(row[name]):
        return NOTHING
    return form(row[name])


def _joined(method: str, note: str) -> str:
    return method + (f" ({note})" if note else "")
