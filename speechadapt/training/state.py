"""Checkpoints of a run: everything needed to go on as if nothing had happened. No pickles.

A checkpoint is a folder ``state-000125``; it appears by one rename, and only then is the older one
deleted. What is random is a function of (seed, step), so no generator state has to be kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from speechadapt.errors import ConfigError
from speechadapt.files import remove, replacing, write_json

_PATTERN = "state-[0-9][0-9][0-9][0-9][0-9][0-9]*"


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        settings: The run's settings as JSON; a run goes on only with the same ones.
        step: Steps done.
        seconds: Spent in training so far, over all starts.
        best_error: Lowest development error so far; None before the first evaluation.
        best_step: Where it was reached.
        stale: Evaluations since then.
        errors: ``[step, error]`` of every evaluation.
        parameters: What learns.
        best: What learns, at the best evaluation.
        optimizer: AdamW's moments by ``exp_avg/<parameter>`` and ``exp_avg_sq/<parameter>``.
    """

    settings: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    best_error: float | None = None
    best_step: int = 0
    stale: int = 0
    errors: list[list[float]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


_TENSORS = ("parameters", "best", "optimizer")


def save_state(folder: Path, state: TrainState) -> None:
    """Write a checkpoint, then drop the older ones."""
    values = {k: v for k, v in vars(state).items() if k not in _TENSORS}
    path = folder / f"state-{state.step:06d}"
    known = ("state.json", *(f"{name}.safetensors" for name in _TENSORS))
    with replacing(path, *known) as temporary:
        temporary.mkdir()
        for name in _TENSORS:
            safetensors.torch.save_file(getattr(state, name), temporary / f"{name}.safetensors")
        write_json(temporary / "state.json", values)
    for older in folder.glob(_PATTERN):
        if older != path:
            remove(older)


def load_state(folder: Path, settings: dict[str, Any]) -> TrainState:
    """The newest checkpoint of a run, or a fresh state.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """
    checkpoints = sorted(folder.glob(_PATTERN))
    if not checkpoints:
        return TrainState(settings)
    values = json.loads((checkpoints[-1] / "state.json").read_text(encoding="utf-8"))
    differing = sorted(
        key
        for key in {*settings, *values["settings"]}
        if settings.get(key) != values["settings"].get(key)
    )
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder}: holds a run with other settings ({key} was "
            f"{values['settings'].get(key)!r}, now {settings.get(key)!r}); "
            "use another --out, or delete the folder to start anew"
        )
    tensors = {
        name: safetensors.torch.load_file(checkpoints[-1] / f"{name}.safetensors")
        for name in _TENSORS
    }
    return TrainState(**values, **tensors)


def settings_of(**parts: Any) -> dict[str, Any]:
    """Settings as they come back from JSON, so that tuples and lists compare equal."""
    plain = {k: asdict(v) if hasattr(v, "__dataclass_fields__") else v for k, v in parts.items()}
    return json.loads(json.dumps(plain))
