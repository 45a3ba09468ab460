"""Many recordings to labels, in batches of similar length, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from speechadapt.audio import SAMPLE_RATE
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierHead
from speechadapt.heads.head import unlike
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


@torch.inference_mode()
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
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is too small: use 1 or more")
    head = model.head(route)
    if not isinstance(head, ClassifierHead):
        raise unlike(ClassifierHead.kind, head, "classifying")
    batch: list[tuple[str, np.ndarray]] = []

    def finish() -> Iterator[Labels]:
        waves = [wave for _, wave in batch]
        encoded = model.encode(waves, [route] * len(waves), trailing_silence)
        for (name, wave), row in zip(batch, head.probabilities(encoded).tolist(), strict=True):
            ranked = sorted(zip(row, head.config.labels, strict=True), reverse=True)
            yield Labels(name, len(wave) / SAMPLE_RATE, {label: p for p, label in ranked})
        if progress:
            progress(sum(map(len, waves)) / SAMPLE_RATE)
        batch.clear()

    for item in items:
        batch.append(item)
        if len(batch) == batch_size:
            yield from finish()
    if batch:
        yield from finish()
