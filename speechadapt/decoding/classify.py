"""Many recordings to labels or values, in batches, results in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechadapt.audio import SAMPLE_RATE
from speechadapt.backbones.base import Encoded
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierHead
from speechadapt.heads.head import unlike
from speechadapt.heads.regressor import RegressorHead
from speechadapt.model import SpeechModel
from speechadapt.route import Route


@dataclass(frozen=True)
class Labels:
    """What one recording was taken for.

    Attributes:
        id: As it was given.
        seconds: Length of the recording.
        probabilities: Of each label, the most probable first.
    """

    id: str
    seconds: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Score:
    """What one recording was valued at.

    Attributes:
        id: As it was given.
        seconds: Length of the recording.
        name: What the value is called, e.g. ``mos``.
        value: In the unit it was learnt in.
    """

    id: str
    seconds: float
    name: str
    value: float


def classify(
    model: SpeechModel,
    items: Iterable[tuple[str, np.ndarray]],
    *,
    route: Route,
    trailing_silence: float | None,
    batch_size: int = 8,
    progress: Callable[[float], object] | None = None,
) -> Iterator[Labels]:
    """Label recordings; what is longer than the base reads at once is cut there.

    Args:
        model: The frozen model and its adapters.
        items: Id and samples, mono float32 at 16 kHz.
        route: What all of them use.
        trailing_silence: Seconds after each recording; None = as the base was trained.
        batch_size: Recordings at once.
        progress: Told the seconds of sound after each batch.

    Raises:
        ConfigError: The route has no classifier, or the batch size is no number above 0.
        RouteError: The route's adapter is not loaded.
    """
    head = model.head(route)
    if not isinstance(head, ClassifierHead):
        raise unlike(ClassifierHead.kind, head, "classifying")
    rows = _rows(model, items, head.probabilities, route, trailing_silence, batch_size, progress)
    for name, seconds, row in rows:
        ranked = sorted(zip(row.tolist(), head.config.labels, strict=True), reverse=True)
        yield Labels(name, seconds, {label: p for p, label in ranked})


def score(
    model: SpeechModel,
    items: Iterable[tuple[str, np.ndarray]],
    *,
    route: Route,
    trailing_silence: float | None,
    batch_size: int = 8,
    progress: Callable[[float], object] | None = None,
) -> Iterator[Score]:
    """Value recordings with a regressor; arguments and errors as :func:`classify` has them."""
    head = model.head(route)
    if not isinstance(head, RegressorHead):
        raise unlike(RegressorHead.kind, head, "valuing")
    rows = _rows(model, items, head.values, route, trailing_silence, batch_size, progress)
    for name, seconds, row in rows:
        yield Score(name, seconds, head.config.value, float(row))


def _rows(
    model: SpeechModel,
    items: Iterable[tuple[str, np.ndarray]],
    say: Callable[[Encoded], Tensor],
    route: Route,
    trailing_silence: float | None,
    batch_size: int,
    progress: Callable[[float], object] | None,
) -> Iterator[tuple[str, float, Tensor]]:
    """Id, seconds, and what the head says of each recording."""
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is too small: use 1 or more")
    items = iter(items)
    while batch := list(itertools.islice(items, batch_size)):
        waves = [wave for _, wave in batch]
        encoded = model.encode(waves, [route] * len(waves), trailing_silence)
        with torch.inference_mode():
            rows = say(encoded)
        for (name, wave), row in zip(batch, rows, strict=True):
            yield name, len(wave) / SAMPLE_RATE, row
        if progress:
            progress(sum(map(len, waves)) / SAMPLE_RATE)
