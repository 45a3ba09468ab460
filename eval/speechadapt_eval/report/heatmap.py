"""Heat maps as inline SVG: every cell also says its figure, so colour is never needed to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from speechadapt_eval.report.table import display_width

_CELL, _LINE, _LETTER = 62, 16, 7.0  # units: width of a cell, height of a text line, of a letter
_LONGEST = 24  # letters of a label that are shown; the whole of it is the cell's tooltip


@dataclass(frozen=True)
class Heatmap:
    """Figures in rows and columns.

    Attributes:
        title: What it shows.
        rows: Name of each row.
        columns: Name of each column.
        heat: What colours the cells, ``[rows][columns]``: 0 is uncoloured, negative ones are blue,
            positive ones orange, the largest the most; NaN has no cell.
        texts: What the cells say, lines of text, ``[rows][columns][lines]``.
        unit: Behind the title.
        scale: The heat of the strongest colour at least, so that noise is not painted as signal.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    heat: Sequence[Sequence[float]]
    texts: Sequence[Sequence[Sequence[str]]]
    unit: str = ""
    scale: float = 0.0


def heatmap_svg(chart: Heatmap) -> str:
    """Draw a heat map; a wide one scrolls."""
    lines = max((len(cell) for row in chart.texts for cell in row), default=1)
    height = _LINE * lines + 12
    labels, heads = [_cut(name) for name in chart.rows], [_cut(name) for name in chart.columns]
    left = 14 + _LETTER * max(map(display_width, labels), default=0)
    # Long names of columns are written aslant, and need room above and behind the last column.
    slant = any(_LETTER * display_width(name) > _CELL - 4 for name in heads)
    longest = _LETTER * max(map(display_width, heads), default=0)
    top = 14 + 0.6 * longest if slant else 24
    width = left + _CELL * len(heads) + (0.8 * longest if slant else 4)
    whole = top + height * len(labels) + 2
    strongest = max([chart.scale, *(abs(x) for row in chart.heat for x in row if math.isfinite(x))])
    parts = [
        f'<svg class="heat" viewBox="0 0 {width:.0f} {whole:.0f}" width="{width:.0f}" '
        f'height="{whole:.0f}" role="img" aria-label="{escape(chart.title)}">'
    ]
    for column, name in enumerate(heads):
        x = left + _CELL * (column + 0.5)
        turn = f' transform="rotate(-37 {x - 8:.1f} {top - 6:.1f})"' if slant else ""
        at = f'x="{x - 8:.1f}"' if slant else f'x="{x:.1f}" text-anchor="middle"'
        parts.append(f'<text {at} y="{top - 6:.1f}"{turn}>{escape(name)}</text>')
    for row, name in enumerate(labels):
        y = top + height * row
        parts.append(
            f'<text x="{left - 8:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="end">'
            f"<title>{escape(chart.rows[row])}</title>{escape(name)}</text>"
        )
        for column, heat in enumerate(chart.heat[row]):
            if math.isnan(heat):
                continue
            x = left + _CELL * column
            share = min(1.0, abs(heat) / strongest) if strongest else 0.0
            sign = "less" if heat < 0 else "more"
            parts.append(
                f'<rect class="{sign}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{_CELL - 2}" '
                f'height="{height - 2}" rx="3" fill-opacity="{0.7 * share:.2f}"/>'
            )
            for line, text in enumerate(chart.texts[row][column]):
                style = ' class="main"' if line == 0 else ' class="aside"'
                down = y + (height - _LINE * len(chart.texts[row][column])) / 2 + 12
                parts.append(
                    f'<text{style} x="{x + _CELL / 2:.1f}" y="{down + _LINE * line:.1f}" '
                    f'text-anchor="middle">{escape(text)}</text>'
                )
    parts.append("</svg>")
    unit = f" ({escape(chart.unit)})" if chart.unit else ""
    caption = f"<figcaption><b>{escape(chart.title)}</b>{unit}</figcaption>"
    return f'<figure>{caption}<div class="scroll">{"".join(parts)}</div></figure>'


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
