"""Readers of labels and scores, and their matching by id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_kaldi_text, read_utts

NO_LABEL = "(none)"


@dataclass(frozen=True)
class Table:
    """What a file says of each item.

    Attributes:
        path: The file.
        ids: Unique, ``[items]``.
        classes: ``[classes]``.
        values: ``[items, classes]``: scores, or 1 and 0 for labels.
        scored: Whether they are scores.
    """

    path: Path
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    scored: bool


@dataclass(frozen=True)
class Labelled:
    """References and answers of the same items, in the order of the references.

    Attributes:
        ids: ``[items]``.
        classes: All that occur on either side, ``[classes]``.
        truth: ``[items, classes]``, bool.
        answers: Labels given, ``[items, classes]``, bool.
        scores: ``[items, classes]``; None if the answers have none.
        one_each: Whether every reference has exactly one label.
        extra: Answers without a reference, left out.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    truth: np.ndarray
    answers: np.ndarray
    scores: np.ndarray | None
    one_each: bool
    extra: int = 0


def read_labels(path: Path) -> Table:
    """Read labels: a line ``utt label [label ...]``, ``.jsonl`` with ``labels``, or ``.npz``.

    In ``.jsonl``, ``labels`` is a label, a list of labels, or an object of label and score. In
    ``.npz``, ``ids`` ``[items]``, ``labels`` ``[items, classes]`` of 0 and 1 or ``[items]`` of
    class numbers, and perhaps ``classes`` ``[classes]``, their names.

    Raises:
        EvalError: The file is damaged, an id occurs twice, or it has scores only.
    """
    if path.suffix == ".npz":
        return _npz(path, "labels")
    table = _jsonl(path) if path.suffix == ".jsonl" else _text(path)
    if table.scored:
        raise EvalError(f"{path} has scores: references are labels")
    return table


def read_answers(path: Path) -> Table:
    """Read answers: as ``read_labels``, or scores.

    Scores are a ``.jsonl`` whose ``labels`` are objects (as ``speechadapt classify --format
    json`` writes; a class that an object has not got scores 0), or ``probs`` ``[items,
    classes]`` of an ``.npz``.

    Raises:
        EvalError: As ``read_labels``.
    """
    if path.suffix == ".npz":
        return _npz(path, "probs")
    return _jsonl(path) if path.suffix == ".jsonl" else _text(path)


def join(reference: Table, answered: Table, threshold: float = 0.5) -> Labelled:
    """Match answers with references by id, and bring both to the same classes.

    Where every reference has one label, the answer is the class with the highest score;
    otherwise all classes whose score is at least ``threshold``.

    Raises:
        EvalError: A reference has no answer, or several labels are answered where there is
            one each.
    """
    row = {name: i for i, name in enumerate(answered.ids)}
    if missing := [name for name in reference.ids if name not in row]:
        raise EvalError(
            f"{answered.path}: {len(missing)} of {len(reference.ids)} references have no answer "
            f"({some(missing)}); score them, or take them out of {reference.path}"
        )
    classes = tuple(dict.fromkeys((*reference.classes, *answered.classes)))
    order = [row[name] for name in reference.ids]
    truth = _widen(reference, classes) > 0
    values = _widen(answered, classes)[order]
    one_each = bool((truth.sum(axis=1) == 1).all())
    if not answered.scored:
        answers = values > 0
    elif one_each:
        answers = np.zeros_like(truth)
        answers[np.arange(len(values)), values.argmax(axis=1)] = True
    else:
        answers = values >= threshold
    if one_each and (several := np.flatnonzero(answers.sum(axis=1) > 1)).size:
        raise EvalError(
            f"{answered.path}: {reference.ids[several[0]]!r} is given several labels, but every "
            f"reference in {reference.path} has one; give the best one, or scores"
        )
    scores = values if answered.scored else None
    extra = len(answered.ids) - len(reference.ids)
    return Labelled(reference.ids, classes, truth, answers, scores, one_each, extra)


def _widen(table: Table, classes: Sequence[str]) -> np.ndarray:
    """Values ``[items, classes]`` in the order of ``classes``; 0 for those it has not got."""
    column = {name: i for i, name in enumerate(classes)}
    wide = np.zeros((len(table.ids), len(classes)))
    wide[:, [column[name] for name in table.classes]] = table.values
    return wide


def _text(path: Path) -> Table:
    lines = read_kaldi_text(path)
    return _table(path, {name: dict.fromkeys(line.split(), 1.0) for name, line in lines.items()})


def _jsonl(path: Path) -> Table:
    found: dict[str, dict[str, float]] = {}
    kinds = set()
    for name, row in read_utts(path).items():
        labels = row.fields.get("labels")
        kinds.add(type(labels) is dict)
        if isinstance(labels, str):
            found[name] = dict.fromkeys(labels.split(), 1.0)
        elif isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            found[name] = dict.fromkeys(labels, 1.0)
        elif isinstance(labels, dict) and all(map(_is_number, labels.values())):
            found[name] = {label: float(score) for label, score in labels.items()}
        else:
            raise EvalError(
                f"{path}: 'labels' of {name!r} is no label, list of labels, or object of label "
                "and score"
            )
    if len(kinds) > 1:
        raise EvalError(f"{path}: some rows have scores, some only labels; give the same for all")
    return _table(path, found, scored=kinds == {True})


def _table(path: Path, found: dict[str, dict[str, float]], *, scored: bool = False) -> Table:
    classes = tuple(sorted({label for labels in found.values() for label in labels}))
    column = {label: i for i, label in enumerate(classes)}
    values = np.zeros((len(found), len(classes)))
    for i, labels in enumerate(found.values()):
        for label, value in labels.items():
            values[i, column[label]] = value
    return Table(path, tuple(found), classes, values, scored)


def _npz(path: Path, key: str) -> Table:
    arrays = _arrays(path)
    for name in ("ids", key):
        if name not in arrays:
            raise EvalError(f"{path} has no {name!r}, only {some(arrays)}; store it with np.savez")
    ids, values = arrays["ids"], arrays[key]
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise EvalError(f"{path}: {key!r} are no numbers but {values.dtype}")
    if key == "labels" and values.ndim == 1:
        values = _one_hot(path, values, arrays)
    if ids.ndim != 1 or values.ndim != 2 or len(ids) != len(values) or not len(ids):
        raise EvalError(
            f"{path}: ids {ids.shape} and {key} {values.shape} do not fit: give [items] and "
            "[items, classes]"
        )
    width = values.shape[1]
    names = arrays.get("classes", np.array([f"class{i}" for i in range(width)]))
    names_of = tuple(map(str, names.tolist()))
    if len(names_of) != width or len(set(names_of)) != width:
        raise EvalError(f"{path}: {len(set(names_of))} different classes for {width} columns")
    keys = tuple(map(str, ids.tolist()))
    if len(set(keys)) < len(keys):
        twice = {name for name in keys if keys.count(name) > 1}
        raise EvalError(f"{path}: ids occur twice ({some(twice)}); they must be unique")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise EvalError(f"{path}: {key!r} of {keys[_first_bad(values)]!r} is NaN or infinite")
    if key == "labels" and not np.isin(values, (0, 1)).all():
        raise EvalError(f"{path}: 'labels' has other values than 0 and 1")
    return Table(path, keys, names_of, values, key == "probs")


def _one_hot(path: Path, numbers: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Class numbers ``[items]`` as ``[items, classes]``; as wide as ``classes`` or ``probs``."""
    known = len(arrays["classes"]) if "classes" in arrays else 0
    if not known and arrays.get("probs", np.empty(0)).ndim == 2:
        known = arrays["probs"].shape[1]
    width = known or int(numbers.max(initial=0)) + 1
    if not ((numbers >= 0) & (numbers < width) & (numbers == np.floor(numbers))).all():
        raise EvalError(f"{path}: 'labels' are no class numbers from 0 to {width - 1}")
    return np.eye(width)[numbers.astype(int)]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise EvalError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zip, header and pickle errors have no common class
        raise EvalError(f"{path} is no .npz of plain arrays; write it with np.savez") from error


def _first_bad(values: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
