"""Many recordings to labels or values, in batches, results in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

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
    routes: Mapping[str, Route],
    trailing_silence: float | None,
    batch_size: int = 8,
    progress: Callable[[float], object] | None = None,
) -> Iterator[Labels | Score]:
    """Label or value recordings; what is longer than the base reads at once is cut there.

    Args:
        model: The frozen model and its adapters.
        items: Id and samples, mono float32 at 16 kHz.
        routes: Of each recording by id; a batch may hold any of them. The head of the route says
            whether labels or a value come out.
        trailing_silence: Seconds after each recording; None = as the base was trained.
        batch_size: Recordings at once.
        progress: Told the seconds of sound after each batch.

    Raises:
        ConfigError: A route has neither classifier nor regressor, or the batch size is no number
            above 0.
        RouteError: A route's adapter is not loaded.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is too small: use 1 or more")
    heads = {route: _head(model, route) for route in dict.fromkeys(routes.values())}
    items = iter(items)
    while batch := list(itertools.islice(items, batch_size)):
        waves = [wave for _, wave in batch]
        own = [routes[name] for name, _ in batch]
        encoded = model.encode(waves, own, trailing_silence)
        for row, (name, wave) in enumerate(batch):
            mine = encoded.rows(torch.tensor([row], device=encoded.lengths.device))
            yield _answer(heads[own[row]], mine, name, len(wave) / SAMPLE_RATE)
        if progress:
            progress(sum(map(len, waves)) / SAMPLE_RATE)


def _head(model: SpeechModel, route: Route) -> ClassifierHead | RegressorHead:
    head = model.head(route)
    if not isinstance(head, (ClassifierHead, RegressorHead)):
        raise unlike(ClassifierHead.kind, head, "classifying")
    return head


@torch.inference_mode()
def _answer(
    head: ClassifierHead | RegressorHead, encoded: Encoded, name: str, seconds: float
) -> Labels | Score:
    """What the head of one utterance says of it."""
    if isinstance(head, RegressorHead):
        return Score(name, seconds, head.config.value, float(head.values(encoded)))
    (row,) = head.probabilities(encoded).tolist()
    ranked = sorted(zip(row, head.config.labels, strict=True), reverse=True)
    return Labels(name, seconds, {label: p for p, label in ranked})
