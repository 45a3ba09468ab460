"""A page that compares systems: figures, training curves, transcripts aligned with their errors.

One HTML file that needs nothing else: no script, no font, no picture from elsewhere. Errors are
shown by colour and by mark, so they survive print and colour blindness.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from speechadapt_eval.outputs import write_text
from speechadapt_eval.report.chart import Chart, svg
from speechadapt_eval.report.page_style import STYLE
from speechadapt_eval.report.systems import HEADER, NOTHING, SystemRow, notes
from speechadapt_eval.report.table import percent, percent_range
from speechadapt_eval.transcripts.wer import ErrorRate, Op, require_same_utterances

_LEGEND = (
    '<p class="note">Marks: <span class="sub"><ins>heard</ins><del>spoken</del></span> another '
    'word than spoken; <del class="gone">missing</del> a word left out; '
    '<ins class="more">extra</ins> a word that nobody spoke.</p>'
)


@dataclass(frozen=True)
class Page:
    """Everything a page shows; empty parts are left out.

    Attributes:
        title: Heading and title of the page.
        intro: Paragraphs of plain text below it.
        rows: The comparison, one system a row.
        systems: Name to word errors, for the aligned transcripts; the last one is the system of
            interest: where it errs most comes first. All on the same utterances.
        audio: Utterance id to the name of its recording.
        charts: See ``speechadapt_eval.report.chart.training_charts``.
        next_commands: What to type next; lines that begin with ``#`` are remarks.
        language: BCP 47 tag of the transcripts, for fonts, hyphenation and screen readers.
        worst: How many utterances to show at most.
        footer: Plain text at the end, e.g. versions and licences.
    """

    title: str
    intro: Sequence[str] = ()
    rows: Sequence[SystemRow] = ()
    systems: Mapping[str, ErrorRate] = field(default_factory=dict)
    audio: Mapping[str, str] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    next_commands: Sequence[str] = ()
    language: str = ""
    worst: int = 100
    footer: Sequence[str] = ()


def write_page(path: Path, page: Page) -> None:
    """Write the page, whole or not at all.

    Raises:
        EvalError: The systems were scored on different utterances, or the file cannot be written.
    """
    # A file name may hold half a surrogate pair, which UTF-8 cannot write.
    write_text(path, render_page(page).encode("utf-8", "xmlcharrefreplace").decode("utf-8"))


def render_page(page: Page) -> str:
    """The page as one HTML text.

    Raises:
        EvalError: The systems were scored on different utterances.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(page.title)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{escape(page.title)}</h1>{_paragraphs(page.intro)}</header><main>",
    ]
    if page.rows:
        parts += ["<section><h2>Results</h2>", _table(page.rows), "</section>"]
        parts += ["<section><h2>WER with 95 % CI</h2>", _bars(page.rows)]
        parts += [_paragraphs(notes(page.rows), "note"), "</section>"]
    if page.charts:
        parts += ['<section><h2>Training</h2><div class="charts">']
        parts += [*map(svg, page.charts), "</div></section>"]
    if page.next_commands:
        commands = escape("\n".join(page.next_commands))
        parts.append(f"<section><h2>What next</h2><pre>{commands}</pre></section>")
    if page.systems:
        parts += ["<section><h2>Transcripts</h2>", *_transcripts(page), "</section>"]
    parts.append(f'</main><footer class="about">{_paragraphs(page.footer)}</footer></body></html>')
    return "\n".join(part for part in parts if part) + "\n"


def _paragraphs(texts: Iterable[str], style: str = "") -> str:
    opening = f'<p class="{style}">' if style else "<p>"
    return "".join(f"{opening}{escape(text)}</p>" for text in texts)


def _table(rows: Sequence[SystemRow]) -> str:
    # The roles keep it a table for screen readers where a phone's style shows cards.
    head = "".join(f'<th scope="col" role="columnheader">{escape(name)}</th>' for name in HEADER)
    lines = []
    for row in rows:
        system, *cells = row.cells()
        lines.append(
            f'<tr role="row"><th scope="row" role="rowheader">{escape(system)}</th>'
            + "".join(
                f'<td role="cell" data-label="{escape(label)}"'
                + (' class="none"' if cell == NOTHING else "")
                + f">{escape(cell)}</td>"
                for label, cell in zip(HEADER[1:], cells, strict=True)
            )
            + "</tr>"
        )
    return (
        f'<table role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )


def _bars(rows: Sequence[SystemRow]) -> str:
    """A bar for each system's WER with its interval as a whisker, on one scale."""
    ends = [x for row in rows for x in (row.wer, row.interval.high) if math.isfinite(x)]
    scale = 97 / max([*ends, 1e-9])
    lines = []
    for row in rows:
        name = escape(f"{row.system}, {row.context}" if row.context else row.system)
        ci = percent_range(row.interval.low, row.interval.high)
        drawn = ""
        if math.isfinite(row.wer):
            drawn = f'<i style="width:{row.wer * scale:.2f}%"></i>'
        if math.isfinite(row.interval.low) and math.isfinite(row.interval.high):
            width = (row.interval.high - row.interval.low) * scale
            drawn += f'<u style="left:{row.interval.low * scale:.2f}%;width:{width:.2f}%"></u>'
        lines.append(
            f'<div><div class="what"><span>{name}</span><b>{percent(row.wer)} {escape(ci)}</b>'
            f'</div><div class="track" aria-hidden="true">{drawn}</div></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def _transcripts(page: Page) -> list[str]:
    rates = list(page.systems.values())
    for rate in rates[:-1]:
        require_same_utterances(rate, rates[-1])
    total = len(rates[-1].utterances)
    # Utterances are sorted by id, the same ones in all systems: one index serves them all.
    order = sorted(
        range(total),
        key=lambda i: (
            -rates[-1].utterances[i].rate,
            -rates[-1].utterances[i].errors,
            -sum(rate.utterances[i].errors for rate in rates),
        ),
    )[: page.worst]
    shown = f"all {total}" if len(order) == total else f"the worst {len(order)} of {total}"
    scored = "as written" if rates[-1].normalize == "none" else "as scored, normalised"
    last = list(page.systems)[-1]
    parts = [f'<p class="note">{shown.capitalize()} utterances, worst of {escape(last)} first. ']
    parts[0] += f"Texts {scored}.</p>"
    parts.append(_LEGEND)
    lang = f' lang="{escape(page.language)}"' if page.language else ""
    for i in order:
        utterance = rates[-1].utterances[i]
        recording = page.audio.get(utterance.id)
        about = escape(utterance.id if recording is None else f"{utterance.id} · {recording}")
        ref = escape(utterance.ref) or '<span class="empty">nothing spoken</span>'
        lines = [f'<dt>reference</dt><dd dir="auto"{lang}>{ref}</dd>']
        for name, rate in page.systems.items():
            scored_one = rate.utterances[i]
            text = _marked(rate.alignment(scored_one), "" if rate.unit == "char" else " ")
            errors = f"{scored_one.errors} / {scored_one.n_ref}"
            lines.append(
                f'<dt>{escape(name)}</dt><dd><span dir="auto"{lang}>{text}</span>'
                f'<span class="rate">{errors} wrong</span></dd>'
            )
        parts.append(f'<article class="utt"><h3>{about}</h3><dl>{"".join(lines)}</dl></article>')
    return parts


def _marked(ops: Sequence[Op], joint: str) -> str:
    """A hypothesis with its errors marked."""
    if not any(op.hyp for op in ops) and not any(op.ref for op in ops):
        return '<span class="empty">nothing heard</span>'
    marked = {
        "equal": "{hyp}",
        "substitute": '<span class="sub"><ins>{hyp}</ins><del>{ref}</del></span>',
        "delete": '<del class="gone">{ref}</del>',
        "insert": '<ins class="more">{hyp}</ins>',
    }
    return joint.join(marked[op.kind].format(ref=escape(op.ref), hyp=escape(op.hyp)) for op in ops)
