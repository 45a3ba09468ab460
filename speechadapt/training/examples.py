"""Training examples: features kept in memory where they never change, augmented where asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from speechadapt.audio import audio_duration, load_audio
from speechadapt.backbones.base import Backbone
from speechadapt.data import Utterance, load_utterances
from speechadapt.errors import DataError
from speechadapt.features import FULL_FRAMES, HOP, Features
from speechadapt.progress import progress
from speechadapt.training.augment import change_speed, mix_at_snr, spec_augment
from speechadapt.training.config import TrainConfig

KEPT_SECONDS = 20_000.0  # of audio whose features are kept in memory, about 32 kB a second
KEPT_STATES = 2e9  # bytes of states that are kept instead
_WINDOW_SECONDS = FULL_FRAMES * HOP / 16_000


@dataclass(frozen=True)
class Listener:
    """Who hears each utterance too: as it is, before noise and masks, but at the same speed.

    Attributes:
        backbone: Computes its features.
        trailing_silence: Seconds after each utterance.
        layers: How many of its layers have read what it hears, at most; None = not even what comes
            before them.
    """

    backbone: Backbone
    trailing_silence: float
    layers: int | None = None

    def hear(self, waves: Sequence[np.ndarray]) -> Features:
        """Features of ``waves``; of one wave, if layers are to read them."""
        features = self.backbone.features(waves, self.trailing_silence)
        return features if self.layers is None else self.backbone.ahead(features, self.layers)


@dataclass(frozen=True)
class Batch:
    """Some utterances and what is heard of them.

    Attributes:
        utterances: Their references.
        heard: By the model in training.
        clean: By the listener; None = there is none.
    """

    utterances: Sequence[Utterance]
    heard: Features
    clean: Features | None = None


class TrainingSet:
    """Utterances as batches of features.

    Args:
        backbone: Computes the features.
        utterances: With transcripts.
        config: Trailing silence and augmentation.
        listener: Who hears each utterance beside the model in training.
        below: Encoder layers below everything that learns: where the audio stays the same and
            memory suffices, they are run once for each utterance. None = nothing is below.

    Raises:
        DataError: No utterance at all, or one longer than 30 s.
        AudioError: A recording cannot be read.
    """

    def __init__(
        self,
        backbone: Backbone,
        utterances: Sequence[Utterance],
        config: TrainConfig,
        listener: Listener | None = None,
        below: int | None = None,
    ):
        if not utterances:
            raise DataError("the training set has no utterances")
        self.backbone = backbone
        self.utterances = list(utterances)
        self.config = config
        lengths = [_seconds(utterance) for utterance in self.utterances]
        for utterance, length in zip(self.utterances, lengths, strict=True):
            if length > _WINDOW_SECONDS:
                raise DataError(
                    f"utterance {utterance.id}: {length:.1f} s long, training takes "
                    f"{_WINDOW_SECONDS:.0f} s at once; cut it into shorter utterances"
                )
        slowest = min(config.augmentation.speed, default=1.0)
        self.seconds = [length / slowest + config.trailing_silence for length in lengths]
        noise = config.augmentation.noise
        self._noise = [_wave(u) for u in load_utterances(noise)] if noise else []
        kept = not config.augmentation.changes_audio and sum(lengths) <= KEPT_SECONDS
        positions = sum(map(backbone.positions_in, self.seconds))
        if not kept or config.augmentation.masks or positions * backbone.width * 4 > KEPT_STATES:
            below = None
        student = Listener(backbone, config.trailing_silence, below)
        # Whoever hears: the model in training first.
        self._ears = [student] if listener is None else [student, listener]
        self._kept: list[list[Features]] | None = None
        if kept:
            with progress(self.utterances, desc="features", unit="utt", leave=False) as bar:
                self._kept = [self._hear_alone(_wave(u)) for u in bar]

    def batch(self, indices: Sequence[int], rng: random.Random) -> Batch:
        """These utterances and their features; ``rng`` decides the augmentation."""
        if self._kept is not None:
            kept = [self._kept[index] for index in indices]
            heard, *clean = (_pad(each) for each in zip(*kept, strict=True))
        else:
            pairs = [self._augmented(self.utterances[i], rng) for i in indices]
            heard, *clean = (
                ear.hear([pair[number] for pair in pairs]) for number, ear in enumerate(self._ears)
            )
        if self.config.augmentation.masks:
            heard = spec_augment(heard, self.config.augmentation, rng)
        utterances = [self.utterances[index] for index in indices]
        return Batch(utterances, heard, clean[0] if clean else None)

    def _hear_alone(self, wave: np.ndarray) -> list[Features]:
        """Features of one wave for each ear; equal ears share them."""
        made: dict[Listener, Features] = {}
        for ear in self._ears:
            if ear not in made:
                made[ear] = ear.hear([wave])
        return [made[ear] for ear in self._ears]

    def _augmented(self, utterance: Utterance, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
        """What the model in training hears, and what a listener does."""
        wave, augmentation = _wave(utterance), self.config.augmentation
        if augmentation.speed:
            wave = change_speed(wave, rng.choice(augmentation.speed))
        clean = wave
        if self._noise:
            wave = mix_at_snr(wave, rng.choice(self._noise), rng.uniform(*augmentation.snr), rng)
        return wave, clean


def _wave(utterance: Utterance) -> np.ndarray:
    return load_audio(utterance.audio, utterance.start, utterance.end)


def _seconds(utterance: Utterance) -> float:
    if utterance.duration is not None:
        return utterance.duration
    if utterance.end is not None:
        return utterance.end - (utterance.start or 0.0)
    return audio_duration(utterance.audio) - (utterance.start or 0.0)


def _pad(features: Sequence[Features]) -> Features:
    """Batch of features of one utterance each, zero beyond each one's end."""
    lengths = torch.cat([feature.lengths for feature in features])
    values = [feature.values[0].movedim(-1, 0) for feature in features]
    padded = pad_sequence(values, batch_first=True)
    return Features(padded.movedim(1, -1), lengths, features[0].layers)
