"""Plain-text and markdown tables for terminals and RESULTS files."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from speechadapt_eval.errors import EvalError


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    align: str = "",
    markdown: bool = False,
) -> str:
    """Render a table with aligned columns.

    Args:
        header: A title for each column.
        rows: The cells of each row.
        align: ``l`` or ``r`` for each column; by default the first is left, the others right.
        markdown: Write a markdown table, otherwise two spaces between columns.

    Raises:
        EvalError: A row or ``align`` has another number of columns than the header.
    """
    align = align or "l" + "r" * (len(header) - 1)
    if len(align) != len(header) or set(align) - set("lr"):
        raise EvalError(f"align {align!r} does not fit {len(header)} columns: one l or r for each")
    for row in rows:
        if len(row) != len(header):
            raise EvalError(f"row {list(row)!r} has {len(row)} cells, the header {len(header)}")
    table = [[_line(cell, markdown) for cell in row] for row in (header, *rows)]
    widths = [max(3, *(display_width(row[i]) for row in table)) for i in range(len(header))]
    if markdown:
        rule = [
            "-" * (width - 1) + (":" if side == "r" else "-")
            for side, width in zip(align, widths, strict=True)
        ]
    else:
        rule = ["-" * width for width in widths]
    lines = [_pad(row, widths, align) for row in (table[0], rule, *table[1:])]
    if markdown:
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return "".join("  ".join(cells).rstrip() + "\n" for cells in lines)


def display_width(text: str) -> int:
    """Columns of a terminal that ``text`` takes: wide East Asian letters 2, combining marks 0."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def percent(share: float, *, signed: bool = False) -> str:
    """A share as a percentage with two decimals; ``n/a`` for NaN."""
    if math.isnan(share):
        return "n/a"
    return f"{100 * share:{'+' if signed else ''}.2f}"


def percent_range(low: float, high: float, *, signed: bool = False) -> str:
    """An interval of shares: ``[12.31, 15.02]``; ``n/a`` for NaN."""
    if math.isnan(low) or math.isnan(high):
        return "n/a"
    return f"[{percent(low, signed=signed)}, {percent(high, signed=signed)}]"


def _line(cell: str, markdown: bool) -> str:
    """A cell on one line, its bars escaped where a bar would end it."""
    text = " ".join(cell.split())
    return text.replace("|", "\\|") if markdown else text


def _pad(cells: Sequence[str], widths: Sequence[int], align: str) -> list[str]:
    padded = []
    for cell, width, side in zip(cells, widths, align, strict=True):
        space = " " * (width - display_width(cell))
        padded.append(cell + space if side == "l" else space + cell)
    return padded
