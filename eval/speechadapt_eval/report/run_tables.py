"""The tables of a run as people read them: shares in percent, what is alike said once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from speechadapt_eval.report.alignment import clip
from speechadapt_eval.report.scored import ScoredRun, as_number
from speechadapt_eval.report.systems import NOTHING
from speechadapt_eval.report.table import percent

_MOST_ROWS = 300  # of a table in the page; the file has all
_RATE = ("rate", "low", "high")
_REGRET = ("regret", "regret_low", "regret_high")
_SHARES = {  # columns of each table that are printed in percent
    "wer": _RATE,
    "slices": _RATE,
    "pairs": ("delta", "low", "high"),
    "stream_pairs": ("delta", "low", "high"),
    "matrix": ("value", "low", "high", "delta", "delta_low", "delta_high", *_REGRET),
    "routing": ("top1", "low", "high", *_REGRET),
}
# In this order and by these titles; further tables follow under their own names.
_TITLES = {
    "wer": "Error rates",
    "pairs": "Paired differences",
    "stream_pairs": "Streams against offline",
    "slices": "Slices",
    "hallucination": "Hallucination",
    "speed": "Speed",
    "latency": "Latency of streams",
    "mos": "MOS of the input",
    "matrix": "Matrix",
    "routing": "Routing",
}


@dataclass(frozen=True)
class Table:
    """A table of the report, as texts.

    Attributes:
        name: Its id in the page.
        title: Heading.
        header: A title for each column.
        rows: The cells of each row.
        align: ``l`` or ``r`` for each column.
        notes: Remarks below it.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    notes: Sequence[str] = ()


def run_tables(scored: ScoredRun) -> list[Table]:
    """Every table of the run's folder that has rows, but those of single utterances.

    Raises:
        EvalError: A table cannot be read.
    """
    folder = scored.run.path / "tables"
    found = sorted(path.stem for path in folder.glob("*.csv")) if folder.is_dir() else []
    found = [name for name in found if not name.endswith("_utt")]
    names = [name for name in _TITLES if name in found]
    names += [name for name in found if name not in _TITLES]
    tables = (_csv_table(scored, name) for name in names)
    return [one for one in tables if one.rows]


def _csv_table(scored: ScoredRun, name: str) -> Table:
    """A table of the run, its shares in percent; columns that are empty or alike are left out."""
    records = scored.run.table(name)
    shares = _SHARES.get(name, ())
    columns = [
        column
        for column in dict.fromkeys(key for record in records for key in record if key)
        if any(record.get(column) for record in records)
    ]
    notes = []
    if len(records) > 1:
        alike = {
            column: records[0][column]
            for column in columns
            if column not in ("system", "set") and len({r.get(column) for r in records}) == 1
        }
        columns = [column for column in columns if column not in alike]
        if alike:
            notes.append("In every row: " + ", ".join(f"{k} {v}" for k, v in alike.items()) + ".")
    if len(records) > _MOST_ROWS:
        notes.append(f"The first {_MOST_ROWS:,} of {len(records):,} rows; all: tables/{name}.csv.")
    numeric = {
        column
        for column in columns
        if all(as_number(value) == as_number(value) for r in records if (value := r.get(column)))
    }
    texts = [
        _cells(
            [record.get(column) or "" for record in records[:_MOST_ROWS]],
            numeric=column in numeric,
            shares=column in shares,
            signed=column.startswith("delta"),
        )
        for column in columns
    ]
    rows = list(zip(*texts, strict=True))
    header = [f"{c} %" if c in numeric and c in shares else c for c in columns]
    align = "".join("r" if column in numeric else "l" for column in columns)
    return Table(f"table-{name}", _TITLES.get(name, name), header, rows, align, notes)


def _cells(texts: Sequence[str], *, numeric: bool, shares: bool, signed: bool) -> list[str]:
    """A column as it is printed: shares in percent, figures with the same decimals."""
    if not numeric:
        return [clip(text, 200) or NOTHING for text in texts]
    values = [as_number(text) for text in texts]
    if shares:
        return [NOTHING if v != v else percent(v, signed=signed) for v in values]
    finite = [abs(v) for v in values if math.isfinite(v)]
    whole = all(v == int(v) for v in finite)
    decimals = 0 if whole else max(0, min(6, 3 - math.floor(math.log10(max(finite)))))
    return [NOTHING if v != v else f"{v:,.{decimals}f}" for v in values]
