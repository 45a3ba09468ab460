"""Settings against their annotations: files and callers may say anything."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from speechadapt.errors import SpeechAdaptError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_types(config: Any, error: Callable[[str], SpeechAdaptError], where: str) -> None:
    """Hold every field of a dataclass to its annotation; a list where a tuple belongs becomes one.

    Whole numbers are numbers; true and false are neither.

    Args:
        config: Instance of a dataclass whose fields are plain (int, float, bool, str, other
            dataclasses), tuples or dicts of such, or None.
        error: What is raised about the first field that does not hold.
        where: What its sentence begins with.
    """
    cls: Any = type(config)
    hints = _hints(cls)
    for field in fields(config):
        value, kind = getattr(config, field.name), hints[field.name]
        if isinstance(value, list) and _of(tuple(value), kind):
            object.__setattr__(config, field.name, tuple(value))  # also where it is frozen
        elif not _of(value, kind):
            raise error(f"{where}: {field.name} is {value!r}, expected {_words(kind)}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _of(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of the annotated ``kind``."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_of(value, each) for each in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_of(each, inner[0]) for each in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_of, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(
            _of(key, inner[0]) and _of(each, inner[1]) for key, each in value.items()
        )
    if kind in (int, float):
        wanted = int if kind is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    """``kind`` as users know it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return f"a list, each {_words(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}, each {_words(inner[0])}"
    if origin is dict:
        return "settings by name"
    if kind is type(None):
        return "nothing"
    return _WORDS.get(kind) or f"settings of {kind.__name__}"
