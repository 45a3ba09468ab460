"""A page that compares systems: figures, training curves, transcripts aligned with their errors.

One HTML file that needs nothing else: no script, no font, no picture from elsewhere. Errors are
shown by colour and by mark, so they survive print and colour blindness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from speechadapt_eval.outputs import write_text
from speechadapt_eval.report.alignment import LEGEND, article
from speechadapt_eval.report.bars import Bar, bars_html
from speechadapt_eval.report.chart import Chart, svg
from speechadapt_eval.report.markup import document, paragraphs, section, table
from speechadapt_eval.report.systems import ALIGN, HEADER, SystemRow, notes
from speechadapt_eval.transcripts.wer import ErrorRate, require_same_utterances


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
    commands = escape("\n".join(page.next_commands))
    charts = "".join(map(svg, page.charts))
    parts = [
        f"<header><h1>{escape(page.title)}</h1>{paragraphs(page.intro)}</header><main>",
        section("Results", table(HEADER, [row.cells() for row in page.rows], ALIGN, cards=True))
        if page.rows
        else "",
        section("WER with 95 % CI", _bars(page.rows), paragraphs(notes(page.rows), "note"))
        if page.rows
        else "",
        section("Training", f'<div class="charts">{charts}</div>' if charts else ""),
        section("What next", f"<pre>{commands}</pre>" if commands else ""),
        section("Transcripts", *_transcripts(page)) if page.systems else "",
        f'</main><footer class="about">{paragraphs(page.footer)}</footer>',
    ]
    return document(page.title, parts)


def _bars(rows: Sequence[SystemRow]) -> str:
    names = [f"{row.system}, {row.context}" if row.context else row.system for row in rows]
    return bars_html(
        [
            Bar(name, row.wer, row.interval.low, row.interval.high)
            for name, row in zip(names, rows, strict=True)
        ]
    )


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
    parts.append(LEGEND)
    for i in order:
        of_each = [rate.utterances[i] for rate in rates]
        recording = page.audio.get(of_each[-1].id)
        heading = of_each[-1].id + ("" if recording is None else f" · {recording}")
        parts.append(
            article(of_each[-1], page.systems, of_each, heading=heading, language=page.language)
        )
    return parts
