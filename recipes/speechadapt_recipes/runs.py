"""Reading what a recipe's runs have left on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from speechadapt.adapters.adapter import HEAD
from speechadapt.adapters.registry import config_from_dict, family_of
from speechadapt.data import read_data_dir
from speechadapt_eval.errors import EvalError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        EvalError: The file is missing.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvalError(f"{path}: missing; run the earlier stages of run.sh first") from None
    return values


def read_references(data: Path) -> dict[str, str]:
    """Transcripts of a data directory by utterance; empty where there is none."""
    return {u.id: u.text or "" for u in read_data_dir(data)}


def parameters_of(adapter: Path) -> int:
    """Numbers that a stored adapter has learnt, without its head."""
    description = read_json(adapter / "speechadapt.json")
    fixed = family_of(config_from_dict(description["config"])).buffers
    learnt = 0
    for key, shape in description["shapes"].items():
        site, _, part = key.partition("/")
        if site != HEAD and part not in fixed:
            learnt += math.prod(shape)
    return learnt
