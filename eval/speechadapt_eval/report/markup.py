"""What pages are made of: the document, paragraphs, tables.

A page is one file that needs nothing else: no script, font or picture from elsewhere. Its one
script sorts tables, and the page's own policy admits no other, whatever names and texts may hold.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from speechadapt_eval.report.page_style import STYLE
from speechadapt_eval.report.systems import NOTHING

_LONG = 44  # letters: longer cells are wrapped
# Sorts tables of class "sortable" at a press on a column's head, or as the address asks:
# #sort=TABLE,COLUMN or #sort=TABLE,COLUMN,desc. What is no number comes last.
_SORT = """
"use strict";
const number = cell => parseFloat(cell.textContent.replaceAll(",", "").replace("[", ""));
const compare = numeric => (a, b) => {
  if (!numeric) return a.textContent.localeCompare(b.textContent, undefined, {numeric: true});
  return number(a) - number(b);
};
function sort(table, column, descending) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (!heads[column]) return;
  const numeric = heads[column].classList.contains("n");
  const lost = row => numeric && Number.isNaN(number(row.cells[column]));
  const by = compare(numeric), sign = descending ? -1 : 1;
  const rows = [...body.rows].sort((a, b) =>
    lost(a) || lost(b) ? lost(a) - lost(b) : sign * by(a.cells[column], b.cells[column]));
  body.append(...rows);
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table.sortable"))
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () =>
      sort(table, column, head.getAttribute("aria-sort") === "ascending"));
  });
function asked() {
  const [name, column, order] = location.hash.replace(/^#sort=/, "").split(",");
  const table = document.getElementById(name);
  if (table?.matches("table.sortable")) sort(table, Number(column), order === "desc");
}
addEventListener("hashchange", asked);
asked();
"""


def document(title: str, parts: Iterable[str], *, script: bool = False) -> str:
    """A whole page.

    Args:
        title: Plain text.
        parts: HTML of the body.
        script: With the script that sorts tables.
    """
    run = f"<script>{_SORT}</script>" if script else ""
    digest = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; media-src 'self' file: data:; script-src "
        + (f"'sha256-{digest}'" if script else "'none'")
    )
    head = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
    ]
    lines = [*head, *(part for part in parts if part), f"{run}</body></html>"]
    return "\n".join(lines) + "\n"


def paragraphs(texts: Iterable[str], style: str = "") -> str:
    """Plain texts as paragraphs, of a class of the style sheet."""
    opening = f'<p class="{style}">' if style else "<p>"
    return "".join(f"{opening}{escape(text)}</p>" for text in texts)


def section(title: str, *parts: str) -> str:
    """A section under its heading; empty without any part."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str = "",
    *,
    name: str = "",
    cards: bool = False,
) -> str:
    """A table of plain texts, whose first column names the row.

    Args:
        header: A title for each column.
        rows: The cells of each row.
        align: ``l`` or ``r`` for each column, ``r`` for figures; by default only the first is left.
        name: Its id in the page, which makes it sortable.
        cards: On a phone, show each row as a card: for few rows that are read one by one.
            Otherwise the table scrolls sideways, below the names of its rows.
    """
    align = align or "l" + "r" * (len(header) - 1)
    # The roles keep it a table for screen readers where a phone's style shows cards.
    head = "".join(
        f'<th scope="col" role="columnheader"{" class=n" * (side == "r")}>{escape(title)}</th>'
        for title, side in zip(header, align, strict=True)
    )
    lines = []
    for first, *cells in rows:
        lines.append(f'<tr role="row"><th scope="row" role="rowheader">{escape(first)}</th>')
        for title, side, cell in zip(header[1:], align[1:], cells, strict=True):
            kinds = ["n"] * (side == "r") + ["none"] * (cell == NOTHING)
            kinds += ["long"] * (len(cell) > _LONG)
            style = f' class="{" ".join(kinds)}"' if kinds else ""
            label = f' data-label="{escape(title)}"' if cards else ""
            lines.append(f'<td role="cell"{label}{style}>{escape(cell)}</td>')
        lines.append("</tr>")
    opening = f' id="{escape(name)}"' if name else ""
    style = " ".join(filter(None, ["cards" if cards else "", "sortable" if name else ""]))
    whole = (
        f'<table role="table"{opening} class="{style}"><thead role="rowgroup">'
        f'<tr role="row">{head}</tr></thead><tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )
    return whole if cards else f'<div class="scroll" tabindex="0">{whole}</div>'
