"""The folder of a run: the harness writes it, the report reads it.

    RUN/run.json              how it was made, its systems and its sets
    RUN/hyps/SYSTEM/SET.jsonl one row an utterance: id, ref, hyp, lang, and further fields
    RUN/hyps/SYSTEM/SET.json  what the decoding of this set took
    RUN/tables/NAME.csv       figures (shares, seconds), the columns named in ``TABLES``

Every file appears whole or not at all. A run that was stopped lacks files; none is damaged.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from speechadapt_eval.errors import EvalError, choose
from speechadapt_eval.io import Row, read_utts
from speechadapt_eval.outputs import write_csv, write_json, write_jsonl

RECORD = "run.json"
# The tables that the harness itself writes; rates, deltas and their ends are shares.
TABLES: dict[str, tuple[str, ...]] = {
    "wer": (
        *("system", "set", "lang", "unit", "errors", "n_ref"),
        *("substitutions", "deletions", "insertions", "rate", "low", "high", "method"),
        *("utterances", "speakers", "normalizer", "note"),
    ),
    "pairs": (
        *("baseline", "system", "set", "delta", "low", "high", "p_improvement"),
        *("unit", "level", "method", "utterances", "note"),
    ),
    "speed": (
        *("system", "set", "audio_seconds", "seconds", "rtf", "rtfx", "p50", "p95", "p99"),
        *("batched", "load_average", "peak_memory_bytes", "cpu_joules", "gpu_joules"),
    ),
}
_NAME_BYTES = 100  # of a file name; file systems allow 255, and a suffix follows
T = TypeVar("T")


@dataclass(frozen=True)
class RunSystem:
    """A system of a run.

    Attributes:
        name: Unique in the run and fit for a file name.
        spec: What was asked for, e.g. ``cmd:./my_asr {wav}``.
        parameters: Of the whole model; None if not known.
        trainable: Parameters that were trained for it; None if not known.
        load_seconds: Opening the system; None if nothing was opened (all was cached).
        threads: Computing threads; None if not known.
    """

    name: str
    spec: str
    parameters: int | None = None
    trainable: int | None = None
    load_seconds: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class RunSet:
    """A test set of a run.

    Attributes:
        name: Unique in the run and fit for a file name.
        path: Where it was read.
        language: The language of all its utterances; None if they differ or it is not known.
        utterances: How many.
        seconds: Of audio; None if not known.
    """

    name: str
    path: str
    language: str | None
    utterances: int
    seconds: float | None = None


@dataclass(frozen=True)
class Decoding:
    """What the decoding of one set by one system took.

    Attributes:
        seconds: Compute of all utterances, without loading and warm-up; None if unknown.
        audio_seconds: Of their audio; None if unknown.
        warmup_utterances: Transcribed once before the clock was started, and dropped.
        batched: Whether utterances were computed together, so that none has a time of its own.
        load_average: Of the machine over one minute, at the end.
        peak_memory_bytes: The most that the process held.
        cpu_joules: Energy of the machine's CPUs, other work included; None if it does not tell.
        gpu_joules: Of its GPUs.
        fingerprint: SHA-256 of the system and of all its inputs.
    """

    seconds: float | None = None
    audio_seconds: float | None = None
    warmup_utterances: int = 0
    batched: bool = False
    load_average: float | None = None
    peak_memory_bytes: int | None = None
    cpu_joules: float | None = None
    gpu_joules: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Run:
    """A run on disk. Transcripts and tables are read when they are asked for.

    Attributes:
        path: The folder.
        systems: In the order given; the first is the baseline.
        sets: In the order given.
        record: Everything else in ``run.json``: command, started, versions, machine, ...
    """

    path: Path
    systems: tuple[RunSystem, ...]
    sets: tuple[RunSet, ...]
    record: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read ``run.json``.

        Raises:
            EvalError: It is missing or damaged; file and reason are named.
        """
        where = path / RECORD
        if not path.is_dir():
            raise EvalError(f"{path} is no folder: give the folder that speechadapt-eval run made")
        record = _read_object(where)
        systems = _items(where, record.pop("systems", None), "systems", RunSystem)
        sets = _items(where, record.pop("sets", None), "sets", RunSet)
        for what, items in (("systems", systems), ("sets", sets)):
            _check_names(where, what, [item.name for item in items])
        return cls(path, systems, sets, record)

    def write(self) -> None:
        """Write ``run.json``.

        Raises:
            EvalError: It cannot be written.
        """
        lists = {
            "systems": [asdict(system) for system in self.systems],
            "sets": [asdict(one) for one in self.sets],
        }
        write_json(self.path / RECORD, self.record | lists)

    def system(self, name: str) -> RunSystem:
        """The system of this name.

        Raises:
            EvalError: There is none.
        """
        choose(f"system of {self.path}", name, [system.name for system in self.systems])
        return next(system for system in self.systems if system.name == name)

    def decoded(self) -> Iterator[tuple[RunSystem, RunSet]]:
        """Systems and sets of which there are transcripts, in the order of the run."""
        for system in self.systems:
            for one in self.sets:
                if self.hyps_path(system.name, one.name).is_file():
                    yield system, one

    def hyps_path(self, system: str, set_name: str) -> Path:
        """Where the transcripts of a system on a set are."""
        return self.path / "hyps" / system / f"{set_name}.jsonl"

    def rows(self, system: str, set_name: str) -> dict[str, Row]:
        """Transcripts of a system on a set, by utterance id, in the order of the set.

        Raises:
            EvalError: The file is missing or damaged (line named).
        """
        return read_utts(self.hyps_path(system, set_name))

    def decoding(self, system: str, set_name: str) -> Decoding:
        """What the decoding took; all unknown if there is no such file.

        Raises:
            EvalError: The file is damaged.
        """
        path = self.hyps_path(system, set_name).with_suffix(".json")
        return _build(path, "", _read_object(path), Decoding) if path.is_file() else Decoding()

    def write_rows(
        self, system: str, set_name: str, rows: Iterable[Row], decoding: Decoding
    ) -> None:
        """Write the transcripts of a system on a set, and what they took.

        Raises:
            EvalError: A file cannot be written.
        """
        path = self.hyps_path(system, set_name)
        write_json(path.with_suffix(".json"), asdict(decoding))
        known = ("id", "ref", "hyp", "lang")
        write_jsonl(path, ({k: getattr(row, k) for k in known} | row.fields for row in rows))

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a table, each a cell by column; empty if the run has no such table.

        Raises:
            EvalError: The table cannot be read.
        """
        path = self.table_path(name)
        if not path.is_file():
            return []
        try:
            text = path.read_text(encoding="utf-8")
            return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EvalError(f"cannot read {path}: {error}; make it again") from error

    def write_table(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one of ``TABLES``; a cell that a row lacks is empty.

        Raises:
            EvalError: No such table, or it cannot be written.
        """
        choose("table", name, TABLES)
        columns = TABLES[name]
        write_csv(self.table_path(name), columns, [[row.get(c) for c in columns] for row in rows])

    def table_path(self, name: str) -> Path:
        """Where a table is."""
        return self.path / "tables" / f"{name}.csv"


def safe_name(text: str) -> str:
    """A name that is one file name everywhere: other characters than letters, digits, ``._-``
    become dashes, dots and dashes at the ends go, and no more than 100 bytes stay."""
    name = re.sub(r"[^\w.-]+", "-", text).encode("utf-8", "ignore")[:_NAME_BYTES]
    return name.decode("utf-8", "ignore").strip("-.") or "unnamed"


def _check_names(where: Path, what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name != safe_name(name):
            raise EvalError(f"{where}: {name!r} in {what!r} is no file name: {safe_name(name)!r}")
        if name.casefold() in seen:
            raise EvalError(f"{where}: two of {what!r} are called {name!r}; rename one of them")
        seen.add(name.casefold())


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise EvalError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{path} is damaged, not JSON ({error}): run again") from error
    if not isinstance(value, dict):
        raise EvalError(f"{path} holds no JSON object: run again")
    return value


def _items(where: Path, value: Any, what: str, kind: type[T]) -> tuple[T, ...]:
    if not isinstance(value, list) or not value:
        raise EvalError(f"{where}: {what!r} is not a list of objects, or it is empty")
    return tuple(_build(where, f"{what}[{i}]: ", item, kind) for i, item in enumerate(value))


def _build(where: Path, place: str, value: Any, kind: type[T]) -> T:
    """Make a dataclass of a JSON object; fields that it does not know are left alone."""
    if not isinstance(value, dict):
        raise EvalError(f"{where}: {place}{value!r} is no object")
    given = {}
    for name, hint in get_type_hints(kind).items():
        if name not in value:
            continue
        allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if float in allowed and type(value[name]) is int:
            value[name] = float(value[name])
        if type(value[name]) not in allowed:
            wanted = " or ".join(t.__name__.replace("NoneType", "null") for t in allowed)
            raise EvalError(f"{where}: {place}{name!r} is {value[name]!r}, expected {wanted}")
        given[name] = value[name]
    needed = [f.name for f in fields(kind) if f.default is f.default_factory]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in given]:
        raise EvalError(f"{where}: {place}{', '.join(missing)} missing")
    return kind(**given)
