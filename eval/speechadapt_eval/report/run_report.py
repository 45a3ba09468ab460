"""The report of a run: ``report.html``, ``report.md``, and the numbers of every plot.

One run, or two compared. The page is described in ``markup.py``; what both files say is made
here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from speechadapt_eval.errors import choose
from speechadapt_eval.outputs import write_csv, write_json, write_text
from speechadapt_eval.report.alignment import clip
from speechadapt_eval.report.audio import Players
from speechadapt_eval.report.figures import Figure, figures, mean_rate
from speechadapt_eval.report.markup import document, paragraphs, section, table
from speechadapt_eval.report.run_tables import Table, run_tables
from speechadapt_eval.report.scored import Part, ScoredRun
from speechadapt_eval.report.systems import NOTHING
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.report.versus import ALIGN, FACTS, HEADER, Comparison, flat
from speechadapt_eval.report.worst import alignments_html, case_lists, cases

WORST = 50
_SIDES = 4  # systems side by side, unless asked for more
_MOST_NUMBERS = 60  # rows of a plot's numbers below it


@dataclass(frozen=True)
class Report:
    """What a report of a run is made of.

    Attributes:
        scored: The run.
        against: Another run, to compare it with; the run is its B.
        show: Systems whose transcripts are shown side by side, the one of interest last;
            empty: all of them, or the first and the last where there are more than four.
        worst: How many utterances in each list.
        embed: Bytes of recordings that may go into the page; others are found by address.

    Raises:
        EvalError: The run has no system of a name in ``show``.
    """

    scored: ScoredRun
    against: Comparison | None = None
    show: Sequence[str] = ()
    worst: int = WORST
    embed: int = 0

    def __post_init__(self) -> None:
        for name in self.show:
            choose(f"system of {self.scored.run.path}", name, self.scored.systems)

    @cached_property
    def figures(self) -> list[Figure]:
        """Every figure that can be drawn of the run."""
        return figures(self.scored)

    def write(self, folder: Path) -> list[Path]:
        """Write ``report.html``, ``report.md`` and ``plots/``.

        Returns:
            The two reports.

        Raises:
            EvalError: A file cannot be written.
        """
        for figure in self.figures:
            path = folder / "plots" / figure.name
            records = [dict(zip(figure.header, row, strict=True)) for row in figure.rows]
            write_csv(path.with_suffix(".csv"), figure.header, figure.rows)
            write_json(path.with_suffix(".json"), records)
        pages = [folder / "report.html", folder / "report.md"]
        write_text(pages[0], self.html(folder))
        write_text(pages[1], self.markdown())
        return pages

    def html(self, folder: Path) -> str:
        """The page, as it is written into ``folder``."""
        tables = [*self._comparison(), self._overview()]
        drawn = "".join(map(_drawing, self.figures))
        parts = [
            f"<header><h1>{escape(self._title())}</h1>{paragraphs(self._intro())}</header><main>",
            *map(_table_html, tables),
            section("Figures", f'<div class="charts">{drawn}</div>') if drawn else "",
            *map(_table_html, run_tables(self.scored)),
            self._transcripts(Players(folder, self.embed)),
            f'</main><footer class="about">{_facts_html(self.scored)}</footer>',
        ]
        return document(self._title(), parts, script=True)

    def markdown(self) -> str:
        """The report for a pull request: tables and facts, no drawings."""
        parts = [f"# {_code(self._title())}\n", *(f"{_text(line)}\n" for line in self._intro())]
        for one in (*self._comparison(), self._overview(), *run_tables(self.scored)):
            rows = [[_text(cell) for cell in row] for row in one.rows]
            parts.append(f"## {_text(one.title)}\n")
            parts.append(render(one.header, rows, align=one.align, markdown=True))
            parts += [f"{_text(note)}\n" for note in one.notes]
        names = ", ".join(f"`plots/{figure.name}.csv`" for figure in self.figures)
        parts.append(f"Figures and aligned transcripts: `report.html`. Their numbers: {names}.\n")
        facts = [f"- {_text(name)}: {_code(text)}\n" for name, text in _facts(self.scored).items()]
        return "\n".join(parts) + "\n## How it was made\n\n" + "".join(facts)

    def _title(self) -> str:
        name = clip(self.scored.name)
        return f"{clip(self.against.a.name)} → {name}" if self.against else name

    def _intro(self) -> list[str]:
        scored = self.scored
        utterances = dict.fromkeys(scored.sets, 0)
        for part in scored.parts:
            utterances[part.set] = max(utterances[part.set], len(part.rate.utterances))
        said = (
            f"{_count(len(scored.systems), 'system')} on {_count(len(scored.sets), 'test set')}, "
            f"{_count(sum(utterances.values()), 'utterance')}."
        )
        started = scored.run.record.get("started")
        said += f" Started {started}." if isinstance(started, str) else ""
        missing = [
            f"{system.name} on {one.name}"
            for system in scored.run.systems
            for one in scored.run.sets
            if scored.part(system.name, one.name) is None
        ]
        lost = f"Not there: {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}."
        return [said, *([lost] if missing else [])]

    def _overview(self) -> Table:
        """Sets by systems: the table that is read first."""
        scored = self.scored
        rows = []
        for name in scored.sets:
            parts = [scored.part(system, name) for system in scored.systems]
            rows.append([name, *(NOTHING if part is None else _rate(part) for part in parts)])
        if len(scored.common_sets()) > 1:
            means = [percent(mean_rate(scored, system)) for system in scored.systems]
            rows.append([f"mean of {len(scored.common_sets())} sets", *means])
        units = {part.rate.name for part in scored.parts}
        notes = [f"{' and '.join(sorted(units))} in percent, with 95 % CI."] if units else []
        align = "l" + "r" * len(scored.systems)
        return Table("overview", "Overview", ("set", *scored.systems), rows, align, notes)

    def _comparison(self) -> list[Table]:
        if self.against is None:
            return []
        one = self.against
        rows = [change.cells() for change in one.changes]
        notes = [*one.notes]
        for what, names in (("Only in B", one.added), ("Only in A", one.removed)):
            notes += [f"{what}: {', '.join(names)}."] if names else []
        title = f"From A ({clip(one.a.name)}) to B ({clip(one.b.name)})"
        facts = Table("made", "What differs in how they were made", FACTS, one.facts, "lll")
        changes = Table("changes", title, HEADER, rows, ALIGN, notes)
        return [changes, facts] if one.facts else [changes]

    def _transcripts(self, players: Players) -> str:
        scored = self.scored
        if self.against is not None and self.against.changes:
            last = [c for c in self.against.changes if c.b.system in (self.show or scored.systems)]
            names = [f"A: {clip(self.against.a.name)}", f"B: {clip(self.against.b.name)}"]
            return alignments_html(
                case_lists(cases([[c.a, c.b] for c in last]), names, self.worst), names, players
            )
        names = list(self.show) or scored.systems
        if not self.show and len(names) > _SIDES:
            names = [names[0], names[-1]]
        groups = []
        for one in scored.sets:
            parts = [part for name in names if (part := scored.part(name, one))]
            if len(parts) == len(names):
                groups.append(parts)
        if not groups:
            return ""
        return alignments_html(case_lists(cases(groups), names, self.worst), names, players)


def _rate(part: Part) -> str:
    rate = percent(part.rate.rate)
    ends = percent_range(part.low, part.high)
    return rate if ends == "n/a" else f"{rate} {ends}"


def _drawing(figure: Figure) -> str:
    """A plot with its numbers: in the page where they are few, in a file always."""
    files = " ".join(
        f'<a href="plots/{figure.name}.{kind}">{kind.upper()}</a>' for kind in ("csv", "json")
    )
    inner = ""
    if len(figure.rows) <= _MOST_NUMBERS:
        texts = [
            ["–" if c in ("", None) or c != c else _number(c) for c in row] for row in figure.rows
        ]
        align = "".join(
            "r" if all(isinstance(row[i], int | float) for row in figure.rows) else "l"
            for i in range(len(figure.header))
        )
        inner = table(figure.header, texts, align, name=f"plot-{figure.name}")
    wide = ' class="whole"' if figure.wide else ""
    note = paragraphs([figure.note], "note") if figure.note else ""
    return (
        f'<div id="{figure.name}"{wide}>{figure.html}{note}'
        f"<details><summary>Numbers</summary><p>{files}</p>{inner}</details></div>"
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table_html(one: Table) -> str:
    drawn = table(one.header, one.rows, one.align, name=one.name)
    return section(one.title, drawn, paragraphs(one.notes, "note"))


def _facts(scored: ScoredRun) -> dict[str, str]:
    """Everything in ``run.json``, flat."""
    facts = flat({k: v for k, v in scored.run.record.items() if k != "versions"})
    for system in scored.run.systems:
        known = {
            "parameters": system.parameters,
            "trained": system.trainable,
            "seconds to load": system.load_seconds,
            "threads": system.threads,
        }
        said = [f"{name} {value:,}" for name, value in known.items() if value is not None]
        facts[f"system {system.name}"] = "; ".join([system.spec, *said])
    for one in scored.run.sets:
        length = f"{one.utterances:,} utterances"
        length += f", {one.seconds / 3600:.2f} h" if one.seconds else ""
        facts[f"set {one.name}"] = f"{one.path}: {length}"
    if not any(name.startswith(("normaliser", "normalizer")) for name in facts):
        facts["normaliser"] = ", ".join(sorted({part.rate.normalize for part in scored.parts}))
    versions = flat(scored.run.record.get("versions") or {})
    facts["versions"] = ", ".join(f"{name} {text}" for name, text in versions.items()) or NOTHING
    return facts


def _facts_html(scored: ScoredRun) -> str:
    items = "".join(
        f"<dt>{escape(clip(name))}</dt><dd>{escape(clip(text, 20_000))}</dd>"
        for name, text in _facts(scored).items()
    )
    return section("How it was made", f'<dl class="facts">{items}</dl>')


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _text(text: str) -> str:
    """Plain text in markdown: nothing in it is markup (bars are the tables' to escape)."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#~" else c.replace("&", "&amp;") for c in line)


def _code(text: str) -> str:
    """Plain text as code: it mentions nobody and links nowhere."""
    return "`" + " ".join(clip(text, 4000).replace("`", "'").split()) + "`"
