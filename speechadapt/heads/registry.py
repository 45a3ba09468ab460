"""Every head by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcConfig, CtcHead
from speechadapt.heads.head import Head
from speechadapt.heads.regressor import RegressorConfig, RegressorHead

HEADS: dict[str, tuple[type, type[Head]]] = {
    CtcHead.kind: (CtcConfig, CtcHead),
    ClassifierHead.kind: (ClassifierConfig, ClassifierHead),
    RegressorHead.kind: (RegressorConfig, RegressorHead),
}


def head_config(values: Mapping[str, Any]) -> tuple[type[Head], Any]:
    """Class and config of a head from JSON.

    Raises:
        ConfigError: The kind is unknown, or a setting does not fit it.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in HEADS:
        raise ConfigError(f"head: kind is {kind!r}, expected one of {', '.join(HEADS)}")
    config, head = HEADS[kind]
    given = {key: value for key, value in values.items() if key != "kind"}
    if unknown := sorted(set(given) - {field.name for field in fields(config)}):
        raise ConfigError(f"head: a {kind} head has no {', '.join(unknown)}")
    needed = {f.name for f in fields(config) if f.default is MISSING}
    if missing := sorted(needed - set(given)):
        raise ConfigError(f"head: a {kind} head needs {', '.join(missing)}")
    return head, config(**given)
