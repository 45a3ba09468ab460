"""Charts as inline SVG: lines, points with error bars; coloured by the page's style, no scripts.

Each series has its own colour (safe for colour-blind readers), dash and mark: any one of them
tells it from the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from speechadapt_eval.report.axis import Axis, short

WIDTH, HEIGHT = 420, 240  # units of the drawing; the page scales it
COLOURS = 7  # of the style sheet: classes c0 to c6
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 12, 40
_MOST = 400  # points drawn in a line: more cannot be seen, only downloaded
_MARKS = (  # one outline for each colour, about 9 units wide, around (0, 0)
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # disc
    "M-3.6-3.6h7.2v7.2h-7.2z",  # square
    "M0-4.8L4.6 3.4h-9.2z",  # triangle
    "M0-5.2L5.2 0L0 5.2L-5.2 0z",  # diamond
    "M0 4.8L4.6-3.4h-9.2z",  # triangle, point down
    "M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",  # plus
    "M-2-5h4v10h-4z",  # post
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line of a chart, or one kind of its points.

    Attributes:
        name: For the legend; empty: not in the legend.
        points: ``(x, y)`` in the order of x; those that are not finite are left out.
        dots: Mark each point (for few measurements).
        line: Join the points.
        faint: A thin grey line, as background of another one.
        errors: ``(low, high)`` of each point's y, drawn as an error bar; empty: none.
    """

    name: str
    points: Points
    dots: bool = False
    line: bool = True
    faint: bool = False
    errors: Points = ()


@dataclass(frozen=True)
class Chart:
    """Series over common axes, with a title that also serves those who cannot see it.

    Attributes:
        title: What it shows.
        x_label: Below the axis.
        y_label: Behind the title.
        series: The lines.
        x_range: What the axis covers at least, so that charts can be read side by side.
        y_range: The same of y.
        x_log: x is logarithmic; see ``Axis`` for zeros.
        x_names: Names to write at these x instead of round ticks.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_range: Iterable[float] = ()
    y_range: Iterable[float] = ()
    x_log: bool = False
    x_names: Mapping[float, str] = field(default_factory=dict)


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


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in both x and y (less is better), in the order of x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(_finite(list(points))):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def svg(chart: Chart) -> str:
    """Draw a chart."""
    every = [point for series in chart.series for point in _finite(series.points)]
    name = escape(chart.title)
    if not every:
        return f'<p class="note">{name}: no points to draw.</p>'
    errors = [pair for series in chart.series for pair in _finite(series.errors)]
    x_axis = Axis.over([*(x for x, _ in every), *chart.x_range, *chart.x_names], log=chart.x_log)
    y_axis = Axis.over([*(y for _, y in every), *(y for e in errors for y in e), *chart.y_range])

    def across(x: float) -> float:
        return _LEFT + x_axis.share(x) * (WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return HEIGHT - _BOTTOM - y_axis.share(y) * (HEIGHT - _TOP - _BOTTOM)

    first, last = every[0], every[-1]
    described = f"{name}: from {first[1]:.3g} at {first[0]:g} to {last[1]:.3g} at {last[0]:g}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">']
    for y in y_axis.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {down(y):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, down(y) + 4, short(y), "end"))
    for x, label in (chart.x_names or {x: short(x) for x in x_axis.ticks}).items():
        parts.append(_text(across(x), HEIGHT - 24, label))
    parts.append(_text((WIDTH + _LEFT - _RIGHT) / 2, HEIGHT - 7, chart.x_label))
    legend, number, step = [], 0, min(4.0, 16 / len(chart.series))
    for series in chart.series:
        style = "faint" if series.faint else f"c{number % COLOURS}"
        mark = _MARKS[(number + number // COLOURS) % len(_MARKS)]
        # Error bars at the same x stand side by side, each with its line and marks.
        aside = step * (number - (len(chart.series) - 1) / 2) if series.errors else 0.0
        if series.line:
            ends = " ".join(
                f"{across(x) + aside:.1f},{down(y):.1f}" for x, y in _thin(_finite(series.points))
            )
            parts.append(f'<polyline class="line {style}" points="{ends}"/>')
        for (x, _), (low, high) in zip(series.points, series.errors, strict=False):
            if all(map(math.isfinite, (x, low, high))):
                at = across(x) + aside
                parts.append(
                    f'<path class="error {style}" d="M{at:.1f} {down(low):.1f}V{down(high):.1f}"/>'
                )
        if series.dots:
            parts += [
                f'<path class="dot {style}" d="{mark}" '
                f'transform="translate({across(x) + aside:.1f} {down(y):.1f})"/>'
                for x, y in _finite(series.points)
            ]
        if series.name:
            legend.append(_key(series, style, mark))
        number += not series.faint
    parts.append("</svg>")
    caption = f"<figcaption><b>{name}</b> ({escape(chart.y_label)}) {' '.join(legend)}"
    return f"<figure>{caption}</figcaption>{''.join(parts)}</figure>"


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _key(series: Series, style: str, mark: str) -> str:
    """An entry of the legend: a piece of the line, the mark, the name."""
    line = f'<path class="line {style}" d="M-12 0H12"/>' if series.line else ""
    dot = f'<path class="dot {style}" d="{mark}"/>' if series.dots else ""
    drawn = f'<svg viewBox="-13 -6 26 12" aria-hidden="true">{line}{dot}</svg>'
    return f'<span class="key">{drawn}{escape(series.name)}</span>'


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
