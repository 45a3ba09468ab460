"""The figures of a run: each drawn where the run has what it needs, with the numbers behind it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from speechadapt_eval.report.alignment import clip
from speechadapt_eval.report.bars import Bar, bars_html
from speechadapt_eval.report.chart import Chart, Series, pareto, svg
from speechadapt_eval.report.heatmap import Heatmap, heatmap_svg
from speechadapt_eval.report.scored import Part, Rate, ScoredRun, as_number, rate_of
from speechadapt_eval.report.table import percent

_BIN = 20  # utterances in a bin of MOS, at least
_BINS = 8
_CLEAN = ("", math.inf)  # neither noise nor SNR


@dataclass(frozen=True)
class Figure:
    """A drawing and its numbers.

    Attributes:
        name: Of its files, ``plots/NAME.csv`` and ``plots/NAME.json``.
        html: The drawing.
        header: A name for each column of its numbers.
        rows: Its numbers: shares, seconds, dB, as in the tables of the run.
        note: What it does not say; plain text.
        wide: It takes the width of the page, not of a column.
    """

    name: str
    html: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    wide: bool = False


def figures(scored: ScoredRun) -> list[Figure]:
    """All figures that can be drawn of a run."""
    made = (draw(scored) for draw in _FIGURES)
    return [figure for figure in made if figure is not None]


def mean_rate(scored: ScoredRun, system: str) -> float:
    """Mean of a system's rates over the sets that all systems transcribed; NaN without any."""
    parts = [scored.part(system, name) for name in scored.common_sets()]
    rates = [part.rate.rate for part in parts if part and not math.isnan(part.rate.rate)]
    return math.fsum(rates) / len(rates) if rates else math.nan


def _bars(scored: ScoredRun) -> Figure | None:
    parts = [p for name in scored.sets for p in scored.parts if p.set == name]
    if not parts:
        return None
    bars = [
        Bar(
            f"{part.system} ({part.rate.name})" if part.rate.name != "WER" else part.system,
            part.rate.rate,
            part.low,
            part.high,
            scored.systems.index(part.system),
            part.set if part.lang in ("", part.set) else f"{part.set} ({part.lang})",
        )
        for part in parts
    ]
    return Figure(
        "wer_by_set",
        bars_html(bars, "Error rate of each set in percent, with 95 % CI"),
        ("system", "set", "lang", "unit", "rate", "low", "high", "n_ref", "utterances"),
        [
            (
                *(p.system, p.set, p.lang, p.rate.unit, p.rate.rate, p.low, p.high),
                *(p.rate.n_ref, len(p.rate.utterances)),
            )
            for p in parts
        ],
        wide=True,
    )


def _wer_snr(scored: ScoredRun) -> Figure | None:
    """A curve for each noise and system; what has no SNR is clean, and belongs to every noise."""

    def condition(part: Part, name: str) -> tuple[str, float] | None:
        noise, snr = part.rows[name].fields.get("noise"), part.number(name, "snr")
        if math.isnan(snr):
            return None if noise else _CLEAN
        return str(noise or "noise"), snr

    pools = defaultdict(list)
    for part in scored.parts:
        for u in part.rate.utterances:
            if (key := condition(part, u.id)) is not None:
                pools[(part.system, *key)].append((part, u))
    rates = {key: rate for key, pool in pools.items() if (rate := rate_of(pool)).n_ref}
    noises = sorted({noise for _, noise, _ in rates} - {""})
    levels = sorted({snr for _, _, snr in rates if math.isfinite(snr)})
    if len(levels) < 2:
        return None
    clean = levels[-1] + max(5.0, levels[-1] - levels[-2])
    names = {snr: f"{snr:g}" for snr in levels} | {clean: "clean"}
    if levels and all(noise for _, noise, _ in rates):
        del names[clean]
    top = max(100 * rate.value for rate in rates.values())
    charts, rows = [], []
    for noise in noises:
        series = []
        for system in scored.systems:
            points = sorted(
                (min(snr, clean), rate)
                for (who, which, snr), rate in rates.items()
                if who == system and which in (noise, "")
            )
            rows += [
                (noise, system, "" if x == clean else x, r.value, r.low, r.high, r.utterances)
                for x, r in points
            ]
            series.append(_curve(system, points))
        charts.append(
            Chart(
                f"Error rate in {clip(noise, 40)}",
                "SNR, dB",
                "WER %",
                series,
                (),
                (0.0, top),
                x_names=names,
            )
        )
    header = ("noise", "system", "snr", "rate", "low", "high", "utterances")
    drawn = f'<div class="charts">{"".join(map(svg, charts))}</div>'
    return Figure("wer_snr", drawn, header, rows, wide=True)


def _wer_mos(scored: ScoredRun) -> Figure | None:
    """Utterances of like MOS in bins: the rate of an utterance alone says little."""
    series, rows = [], []
    for system in scored.systems:
        rated = sorted(
            (
                (mos, u, part)
                for part in scored.parts
                if part.system == system
                for u in part.rate.utterances
                if not math.isnan(mos := part.number(u.id, "mos"))
            ),
            key=lambda item: (item[0], item[1].id),
        )
        bins = min(_BINS, len(rated) // _BIN)
        points = []
        for k in range(bins):
            chosen = rated[len(rated) * k // bins : len(rated) * (k + 1) // bins]
            at = math.fsum(mos for mos, _, _ in chosen) / len(chosen)
            rate = rate_of([(part, u) for _, u, part in chosen])
            points.append((at, rate))
            ends = (chosen[0][0], chosen[-1][0])
            rows.append((system, at, *ends, rate.value, rate.low, rate.high, rate.utterances))
        series.append(_curve(system, points))
    if not any(len(one.points) > 1 for one in series):
        return None
    chart = Chart("Error rate against MOS", "MOS of the input", "WER %", series, (), (0.0,))
    header = ("system", "mos", "mos_from", "mos_to", "rate", "low", "high", "utterances")
    note = (
        "Bins of equally many utterances. MOS is that of the input, so it says how hard an "
        "utterance is, not how good a system is."
    )
    return Figure("wer_mos", svg(chart), header, rows, note)


def _pareto_parameters(scored: ScoredRun) -> Figure | None:
    trained = {s.name: s.trainable for s in scored.run.systems if s.trainable is not None}
    return _trade_off(scored, "wer_parameters", "trained parameters", trained)


def _pareto_rtf(scored: ScoredRun) -> Figure | None:
    seconds: dict[str, float] = defaultdict(float)
    audio: dict[str, float] = defaultdict(float)
    for row in scored.run.table("speed"):
        took, heard = as_number(row.get("seconds")), as_number(row.get("audio_seconds"))
        if heard > 0 and math.isfinite(took) and row.get("set") in scored.common_sets():
            seconds[row.get("system", "")] += took
            audio[row.get("system", "")] += heard
    rtf = {system: seconds[system] / audio[system] for system in seconds}
    return _trade_off(scored, "wer_rtf", "real-time factor (RTF)", rtf)


def _trade_off(scored: ScoredRun, name: str, label: str, costs: dict[str, Any]) -> Figure | None:
    """Each system as a point; a line joins those that no other one beats in both."""
    rates = {s: mean_rate(scored, s) for s in scored.systems if s in costs}
    rates = {s: rate for s, rate in rates.items() if not math.isnan(rate)}
    if len(rates) < 2 or len({costs[s] for s in rates}) < 2:
        return None
    points = {s: (float(costs[s]), 100 * rate) for s, rate in rates.items()}
    front = pareto(points.values())
    series = [Series(s, [points[s]], dots=True, line=False) for s in points]
    # Steps: what lies between two systems is not promised by either.
    steps = [front[0], *(p for a, b in pairwise(front) for p in ((b[0], a[1]), b))]
    if len(front) > 1:
        series.append(Series("not beaten in both", steps, faint=True))
    title = f"Error rate against {label}"
    chart = Chart(title, label, "mean WER %", series, (), (0.0,), x_log=True)
    rows = [(s, costs[s], rates[s], points[s] in front) for s in rates]
    sets = len(scored.common_sets())
    note = f"Mean of {sets} sets, each with the same weight." if sets > 1 else ""
    if unknown := [s for s in scored.systems if s not in rates]:
        note += f" Not known of {', '.join(unknown)}."
    header = ("system", name.removeprefix("wer_"), "mean_rate", "not_beaten")
    return Figure(name, svg(chart), header, rows, note)


def _matrix(scored: ScoredRun) -> Figure | None:
    """Systems against sets; an adapter of each language makes it the train × test matrix.

    ``tables/matrix.csv`` is drawn where there is one: it also has the oracle and the best.
    """
    cells: dict[tuple[str, str], tuple[float, float]] = {}
    unit = "WER %"
    for row in scored.run.table("matrix"):
        numbers = as_number(row.get("value")), as_number(row.get("delta"))
        cells[row.get("row", ""), row.get("set", "")] = numbers
        unit = f"{row.get('metric')} %"
    if not cells:
        for part in scored.parts:
            base = scored.part(scored.systems[0], part.set)
            delta = part.rate.rate - base.rate.rate if base and base is not part else math.nan
            cells[part.system, part.set] = part.rate.rate, delta
    systems = list(dict.fromkeys(system for system, _ in cells))
    sets = list(dict.fromkeys(name for _, name in cells))
    if len(systems) < 2 or len(sets) < 2:
        return None
    heat, texts = [], []
    for system in systems:
        line = [cells.get((system, name), (math.nan, math.nan)) for name in sets]
        heat.append([math.nan if math.isnan(v) else 0 if math.isnan(d) else d for v, d in line])
        texts.append([[percent(v)] + [f"{100 * d:+.1f}"] * (not math.isnan(d)) for v, d in line])
    chart = Heatmap("Systems × sets", systems, sets, heat, texts, f"{unit}, Δ to the base", 0.05)
    note = "Blue: fewer errors than the base, which is the system without Δ; orange: more."
    rows = [(*key, *numbers) for key, numbers in cells.items()]
    header = ("system", "set", "rate", "delta")
    return Figure("matrix", heatmap_svg(chart), header, rows, note, wide=True)


def _weights(scored: ScoredRun) -> Figure | None:
    """Mean weights of a fusion or router: a map of each condition where layers differ."""
    table = scored.run.table("routing")
    marks = [column for column in (table[0] if table else ()) if column.startswith("weight:")]
    if not marks:
        return None
    adapters = [column.removeprefix("weight:") for column in marks]
    maps: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
    rows = []
    for row in table:
        layer, condition = row.get("layer") or "", row.get("condition") or ""
        shares = [as_number(row[column]) for column in marks]
        maps[condition if layer else ""].append((layer or condition, shares))
        rows += [(layer, condition, a, s) for a, s in zip(adapters, shares, strict=True)]
    drawn = []
    for condition, lines in maps.items():
        labels, heat = [label for label, _ in lines], [shares for _, shares in lines]
        texts = [[[f"{share:.2f}"] for share in shares] for shares in heat]
        title = f"Weights of adapters by layer: {clip(condition, 40)}" if condition else ""
        title = title or "Weights of adapters"
        drawn.append(heatmap_svg(Heatmap(title, labels, adapters, heat, texts, "mean", 1.0)))
    header = ("layer", "condition", "adapter", "weight")
    html = f'<div class="charts">{"".join(drawn)}</div>'
    return Figure("weights", html, header, rows, wide=True)


def _routes(scored: ScoredRun) -> Figure | None:
    """Which adapter a system chose, where it chose."""
    counts = {
        (part.system, part.set): Counter(
            str(used) for row in part.rows.values() if (used := row.fields.get("adapter"))
        )
        for part in scored.parts
    }
    used = {s: {a for key, c in counts.items() if key[0] == s for a in c} for s in scored.systems}
    choosing = [system for system in scored.systems if len(used[system]) > 1]
    adapters = sorted(set().union(*(used[system] for system in choosing)))
    lines = [line for line, counted in counts.items() if line[0] in choosing and counted]
    if not lines:
        return None
    shares = [[counts[line][a] / counts[line].total() for a in adapters] for line in lines]
    labels = [f"{s}: {name}" if len(choosing) > 1 else name for s, name in lines]
    texts = [[[f"{100 * share:.0f} %"] if share else [""] for share in row] for row in shares]
    chart = Heatmap("Routes taken", labels, adapters, shares, texts, "share of utterances", 1.0)
    rows = [
        (*line, adapter, counts[line][adapter], share)
        for line, row in zip(lines, shares, strict=True)
        for adapter, share in zip(adapters, row, strict=True)
    ]
    header = ("system", "set", "adapter", "utterances", "share")
    return Figure("routes", heatmap_svg(chart), header, rows, wide=True)


def _latency(scored: ScoredRun) -> Figure | None:
    """Compute time of single utterances; those of a batch have none."""
    series, rows = [], []
    for system in scored.systems:
        times = sorted(
            seconds
            for part in scored.parts
            if part.system == system
            for name in part.rows
            if (seconds := part.number(name, "seconds")) > 0
        )
        steps = min(200, len(times))
        shares = [(k + 1) / steps for k in range(steps)]
        points = [(times[math.ceil(share * len(times)) - 1], 100 * share) for share in shares]
        rows += [(system, x, y / 100) for x, y in points]
        if points:
            series.append(Series(system, points))
    if not rows:
        return None
    title = "Compute time of an utterance"
    chart = Chart(title, "seconds", "% of utterances done", series, (), (0.0, 100.0), x_log=True)
    return Figure("latency_cdf", svg(chart), ("system", "seconds", "share"), rows)


_FIGURES: tuple[Callable[[ScoredRun], Figure | None], ...] = (
    *(
        _bars,
        _matrix,
        _wer_snr,
        _wer_mos,
        _pareto_parameters,
        _pareto_rtf,
        _latency,
        _routes,
        _weights,
    ),
)


def _curve(name: str, points: Sequence[tuple[float, Rate]]) -> Series:
    """Rates in percent, with their intervals."""
    return Series(
        name,
        [(x, 100 * rate.value) for x, rate in points],
        dots=True,
        errors=[(100 * rate.low, 100 * rate.high) for _, rate in points],
    )
