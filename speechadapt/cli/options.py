"""Command-line options made from typed configs, so that each setting is documented once."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from speechadapt.errors import ConfigError

_SIMPLE = (int, float, str)


class _Yaml(yaml.SafeLoader):
    """YAML 1.1, and ``1e-3`` is a number as in 1.2, not a text."""


_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Yaml.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def add_fields(group: argparse._ActionsContainer, config: type, default: str | None = None) -> None:
    """One option for every plain field of a config dataclass, its help from the docstring.

    Args:
        group: Where to. Fields that an earlier dataclass had too keep the option they have.
        config: The dataclass.
        default: What holds when an option is not given, in words; None = the field's default.
    """
    texts = _attribute_texts(config)
    hints = get_type_hints(config)
    taken = {option for action in group._actions for option in action.option_strings}
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        option = "--" + field.name.replace("_", "-")
        if option in taken:
            continue
        text = f"{texts[field.name]} (default {default or field.default})".replace("%", "%%")
        if kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        elif kind in _SIMPLE:
            group.add_argument(option, type=kind, metavar=kind.__name__.upper(), help=text)


def given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of ``config`` that the command line sets."""
    names = (field.name for field in dataclasses.fields(config))
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def read_yaml(path: str, sections: Mapping[str, Sequence[type]]) -> dict[str, dict[str, Any]]:
    """A YAML file of settings.

    Args:
        path: The file.
        sections: What it may have: a section's settings are fields of these configs.

    Raises:
        ConfigError: The file is missing, no YAML, or has a section or key that does not exist.
    """
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise ConfigError(f"{path}: expected sections {', '.join(sections)} with settings in each")
    for section, values in loaded.items():
        if section not in sections:
            raise ConfigError(
                f"{path}: unknown section {section!r}; it may have {', '.join(sections)}"
            )
        fields = (field for config in sections[section] for field in dataclasses.fields(config))
        known = {field.name for field in fields}.difference(sections)
        if unknown := sorted(map(str, set(values) - known)):
            raise ConfigError(
                f"{path}: {section} has unknown {', '.join(unknown)}; "
                f"it may have {', '.join(sorted(known))}"
            )
    return loaded


def build(config: type, *layers: Mapping[str, Any]) -> Any:
    """A config from layers of settings, later ones over earlier ones.

    Raises:
        ConfigError: A value of the wrong type or out of range.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    return config(**values)


def _attribute_texts(config: type) -> dict[str, str]:
    """The ``Attributes:`` section of a docstring, inherited ones included."""
    texts: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n      .*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split()).rstrip(".").replace("``", "")
    return texts
