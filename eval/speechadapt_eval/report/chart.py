"""Small line charts as inline SVG: coloured by the page's style, labelled, without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 240  # units of the drawing; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 12, 40
_MOST = 400  # points drawn in a line: more cannot be seen, only downloaded

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: For the legend; empty: not in the legend.
        points: ``(x, y)`` in the order of x; those that are not finite are left out.
        dots: Mark each point (for few measurements) instead of drawing a bare line.
        faint: Draw it thin, as background of another line.
    """

    name: str
    points: Points
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over common axes, with a title that also serves those who cannot see it.

    Attributes:
        title: What it shows.
        x_label: Below the axis.
        y_label: Behind the title.
        series: The lines.
        x_range: What the axis covers at least, so that charts can be read side by side.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_range: tuple[float, float] | None = None


def training_charts(loss: Points, dev_wer: Points = ()) -> list[Chart]:
    """Charts of a training run.

    Args:
        loss: ``(step, loss)`` of every logged step.
        dev_wer: ``(step, WER)`` of every evaluation, WER as a share.
    """
    lines = [Series("each step", loss, faint=True), Series("smoothed", smooth(loss))]
    steps = (0.0, max([0.0, *(step for step, _ in _finite([*loss, *dev_wer]))]))
    charts = [Chart("Training loss", "step", "loss", lines, steps)]
    if dev_wer:
        percent = [(step, 100 * wer) for step, wer in dev_wer]
        series = [Series("", percent, dots=True)]
        charts.append(Chart("WER on the development set", "step", "WER %", series, steps))
    return charts


def smooth(points: Points, share: float = 0.1) -> list[tuple[float, float]]:
    """Centred moving average of y over ``share`` of the finite points."""
    good = _finite(points)
    reach = int(len(good) * share / 2)
    ys = [y for _, y in good]
    result = []
    for i, (x, _) in enumerate(good):
        window = ys[max(0, i - reach) : i + reach + 1]
        result.append((x, math.fsum(window) / len(window)))
    return result


def svg(chart: Chart) -> str:
    """Draw a chart."""
    lines = [(series, _thin(_finite(series.points))) for series in chart.series]
    every = [point for _, points in lines for point in points]
    name = escape(chart.title)
    if not every:
        return f'<p class="note">{name}: no points to draw.</p>'
    xs = _ticks([x for x, _ in every] + list(chart.x_range or ()))
    ys = _ticks([y for _, y in every])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0])
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    first, last = every[0], every[-1]
    described = f"{name}: from {first[1]:.3g} at {first[0]:g} to {last[1]:.3g} at {last[0]:g}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">']
    for y in ys:
        _, at = place(xs[0], y)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in xs:
        at, _ = place(x, ys[0])
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 24}" text-anchor="middle">{x:g}</text>')
    middle = (WIDTH + _LEFT - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 7}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    for number, (series, points) in enumerate(lines):
        at_all = [place(x, y) for x, y in points]
        style = f"line l{number % 4}" + (" faint" if series.faint else "")
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in at_all)
        parts.append(f'<polyline class="{style}" points="{drawn}"/>')
        if series.dots:
            parts += [
                f'<circle class="dot l{number % 4}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
                for x, y in at_all
            ]
    parts.append("</svg>")
    legend = " ".join(
        f'<span class="key l{number % 4}{" faint" if series.faint else ""}">'
        f"{escape(series.name)}</span>"
        for number, (series, _) in enumerate(lines)
        if series.name
    )
    caption = f"<figcaption><b>{name}</b> ({escape(chart.y_label)}) {legend}</figcaption>"
    return f"<figure>{caption}{''.join(parts)}</figure>"


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep at most about ``_MOST`` points: each stretch keeps its extremes."""
    if len(points) <= _MOST:
        return points
    stretch = math.ceil(2 * len(points) / _MOST)
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _ticks(values: list[float], about: int = 5) -> list[float]:
    """Round numbers, evenly spaced, that enclose all values."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * min((m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw), default=10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
