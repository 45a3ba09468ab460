"""Ratings of a listening test: the scales, and the reader of ``ratings.csv``.

One rating a line, with the columns ``rater,clip,system,score`` and, where they apply, ``kind``,
``expected`` and ``session``. A clip is what is said; with the system it names a sound.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechadapt_eval.errors import EvalError, choose

COLUMNS = ("rater", "clip", "system", "score", "kind", "expected", "session")
REQUIRED = COLUMNS[:4]
# What a sound is for: a system under test; one of known quality; an instruction which score to
# give; the deliberately bad and the untouched version that MUSHRA hides among the others.
KINDS = ("test", "gold", "trap", "anchor", "ref")
CHECKS = ("gold", "trap")  # these say something of the rater, not of a system


@dataclass(frozen=True)
class Scale:
    """A rating scale.

    Attributes:
        name: ``acr`` or ``mushra``.
        low: Lowest score.
        high: Highest score.
        whole: Whether scores are whole numbers.
        gold: How far a rating of a gold clip may be from what is expected.
        trap: The same for a trap.
    """

    name: str
    low: int
    high: int
    whole: bool
    gold: float
    trap: float

    @property
    def unit(self) -> float:
        """A quarter of the scale: 1 point of five."""
        return (self.high - self.low) / 4


# Absolute category rating as in ITU-T P.808, and MUSHRA as in ITU-R BS.1534. P.808 lets a gold clip
# be one point off; MUSHRA's sliders get the same quarter of the scale, and 5 for an unsteady hand.
SCALES = {
    "acr": Scale("acr", 1, 5, True, gold=1, trap=0),
    "mushra": Scale("mushra", 0, 100, False, gold=25, trap=5),
}


@dataclass(frozen=True, slots=True)
class Rating:
    """One line.

    Attributes:
        rater: Who rated.
        clip: What was said.
        system: What made the sound; may be empty for gold clips and traps.
        score: On the test's scale.
        kind: One of ``KINDS``.
        expected: The right score of a gold clip or trap, otherwise None.
        session: One sitting of the rater; may be empty.
    """

    rater: str
    clip: str
    system: str
    score: float
    kind: str = "test"
    expected: float | None = None
    session: str = ""


def scale_of(name: str) -> Scale:
    """A scale by its name.

    Raises:
        EvalError: There is none of that name.
    """
    choose("scale", name, SCALES)
    return SCALES[name]


def read_ratings(paths: Sequence[Path], scale: Scale) -> list[Rating]:
    """Read the ratings of one test, from one file or from a file of each rater.

    Raises:
        EvalError: A file or a line is wrong, a rater rated a sound twice in a session, or a system
            has two kinds (file and line named).
    """
    ratings: list[Rating] = []
    seen: dict[tuple[str, ...], str] = {}
    kinds: dict[str, tuple[str, str]] = {}
    for path in paths:
        for where, row in read_table(path, COLUMNS, REQUIRED):
            rating = _rating(where, row, scale)
            key = (rating.rater, rating.session, rating.clip, rating.system, rating.kind)
            if key in seen:
                raise EvalError(
                    f"{where}: rater {rating.rater!r} rated clip {rating.clip!r} of "
                    f"{rating.system!r} already in {seen[key]}; give repetitions another session"
                )
            seen[key] = where
            if rating.kind not in CHECKS:
                kind, first = kinds.setdefault(rating.system, (rating.kind, where))
                if kind != rating.kind:
                    raise EvalError(
                        f"{where}: system {rating.system!r} is of kind {rating.kind!r} here but of "
                        f"kind {kind!r} in {first}; give the two different names"
                    )
            ratings.append(rating)
    if not kinds:
        raise EvalError(f"{', '.join(map(str, paths))}: gold clips and traps only, nothing to rate")
    return ratings


def ordered(ratings: Sequence[Rating]) -> list[Rating]:
    """One order whatever the order of the lines: sums of floats depend on it in the last digit."""
    return sorted(ratings, key=lambda r: (r.rater, r.clip, r.system, r.kind, r.session, r.score))


def read_table(
    path: Path, columns: Sequence[str], required: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``(file:line, cells by column)`` of a CSV file; cells are stripped, absent ones empty.

    Raises:
        EvalError: The file cannot be read or is no such table.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EvalError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EvalError(
            f"{path}: byte {error.start + 1} is not UTF-8; save the table as CSV UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            where = f"{path}:{reader.line_num}"
            if not any(cells):
                continue
            if not header:
                header = cells
                _check_header(where, header, columns, required)
                continue
            if len(cells) != len(header):
                raise EvalError(
                    f"{where}: {len(cells)} cells, the header has {len(header)} columns; put cells "
                    "that hold a comma in double quotes"
                )
            row = dict.fromkeys(columns, "") | dict(zip(header, cells, strict=True))
            yield where, row
    except csv.Error as error:
        raise EvalError(f"{path}:{reader.line_num}: not a CSV line ({error})") from error
    if not header:
        raise EvalError(f"{path} is empty: expected a header with {','.join(required)}")


def read_kind(
    where: str, row: dict[str, str], needed: Sequence[str], scale: Scale
) -> tuple[str, float | None]:
    """What a line is for, and the expected score where it is a check.

    Raises:
        EvalError: A needed cell is empty, or kind and expected score do not go together.
    """
    kind = row["kind"] or "test"
    if kind not in KINDS:
        raise EvalError(f"{where}: unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
    for column in (*needed, *(() if kind in CHECKS else ("system",))):
        if not row[column]:
            raise EvalError(f"{where}: no {column}")
    if bool(row["expected"]) != (kind in CHECKS):
        needs = "needs an" if kind in CHECKS else "has no"
        raise EvalError(f"{where}: a line of kind {kind!r} {needs} expected score")
    if kind not in CHECKS:
        return kind, None
    return kind, read_score(where, "expected", row["expected"], scale)


def read_score(where: str, column: str, text: str, scale: Scale) -> float:
    """A score of the scale.

    Raises:
        EvalError: It is no number of that scale.
    """
    score = float(text) if re.fullmatch(r"[+-]?[0-9]{1,9}(\.[0-9]*)?", text) else None
    if (
        score is None
        or not scale.low <= score <= scale.high
        or (scale.whole and score != int(score))
    ):
        number = "a whole number" if scale.whole else "a number"
        hint = "; --scale mushra takes 0 to 100" if scale.whole else ""
        raise EvalError(
            f"{where}: {column} {text!r} is not {number} from {scale.low} to {scale.high}{hint}"
        )
    return score


def _rating(where: str, row: dict[str, str], scale: Scale) -> Rating:
    kind, expected = read_kind(where, row, ("rater", "clip"), scale)
    score = read_score(where, "score", row["score"], scale)
    return Rating(row["rater"], row["clip"], row["system"], score, kind, expected, row["session"])


def _check_header(
    where: str, header: list[str], columns: Sequence[str], required: Sequence[str]
) -> None:
    if lost := [name for name in required if name not in header]:
        hint = "; separate the columns with commas" if len(header) == 1 else ""
        raise EvalError(f"{where}: no column {', '.join(lost)} in the header{hint}")
    if odd := [name for name in header if name not in columns]:
        raise EvalError(f"{where}: unknown column {odd[0]!r}; known are {', '.join(columns)}")
    if len(set(header)) < len(header):
        raise EvalError(f"{where}: a column occurs twice in the header")
