"""Bars with their intervals as whiskers, on one scale. Text stays text, so that phones wrap it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from speechadapt_eval.report.chart import COLOURS
from speechadapt_eval.report.table import percent, percent_range


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: What it is of.
        value: A share; NaN draws none.
        low: Lower end of its interval; NaN draws none.
        high: Upper end.
        colour: Number of its colour, the same for the same system.
        group: Heading of this bar and the next ones with the same group; empty: none.
    """

    name: str
    value: float
    low: float
    high: float
    colour: int = 0
    group: str = ""


def bars_html(bars: Sequence[Bar], title: str = "") -> str:
    """Draw bars, one below the other, groups beside each other where there is room."""
    ends = [x for bar in bars for x in (bar.value, bar.high) if math.isfinite(x)]
    scale = 97 / max([*ends, 1e-9])
    parts = []
    for group, members in groupby(bars, lambda bar: bar.group):
        drawn = "".join(_bar(bar, scale) for bar in members)
        heading = f"<h3>{escape(group)}</h3>" if group else ""
        parts.append(f'<div class="group">{heading}{drawn}</div>')
    caption = f"<figcaption><b>{escape(title)}</b></figcaption>" if title else ""
    return f'<figure>{caption}<div class="bars">{"".join(parts)}</div></figure>'


def _bar(bar: Bar, scale: float) -> str:
    drawn = ""
    if math.isfinite(bar.value):
        style = f"c{bar.colour % COLOURS}"
        drawn = f'<rect class="{style}" width="{bar.value * scale:.2f}%" height="100%"/>'
    if math.isfinite(bar.low) and math.isfinite(bar.high):
        low, high = f"{bar.low * scale:.2f}%", f"{bar.high * scale:.2f}%"
        drawn += f'<line x1="{low}" x2="{high}" y1="50%" y2="50%"/>' + "".join(
            f'<line x1="{end}" x2="{end}" y1="15%" y2="85%"/>' for end in (low, high)
        )
    ci = percent_range(bar.low, bar.high)
    return (
        f'<div><div class="what"><span>{escape(bar.name)}</span>'
        f"<b>{percent(bar.value)} {escape(ci)}</b></div>"
        f'<svg class="track" aria-hidden="true">{drawn}</svg></div>'
    )
