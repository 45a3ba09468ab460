"""Training examples: features kept in memory where they never change, augmented where asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
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
_WINDOW_SECONDS = FULL_FRAMES * HOP / 16_000


@dataclass(frozen=True)
class Listener:
    """Who hears each utterance too: as it is, before noise and masks, but at the same speed.

    Attributes:
        backbone: Computes its features.
        trailing_silence: Seconds after each utterance.
    """

    backbone: Backbone
    trailing_silence: float


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
        student = Listener(backbone, config.trailing_silence)
        # Whoever hears: the model in training first.
        self._ears = [student] if listener is None else [student, listener]
        self._kept: list[list[Tensor]] | None = None
        if not config.augmentation.changes_audio and sum(lengths) <= KEPT_SECONDS:
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
                _hear(ear, [pair[number] for pair in pairs])
                for number, ear in enumerate(self._ears)
            )
        augmentation = self.config.augmentation
        if augmentation.time_masks or augmentation.frequency_masks:
            heard = spec_augment(heard, augmentation, rng)
        utterances = [self.utterances[index] for index in indices]
        return Batch(utterances, heard, clean[0] if clean else None)

    def _hear_alone(self, wave: np.ndarray) -> list[Tensor]:
        """Features of one wave for each ear; equal ears share them."""
        made: dict[Listener, Tensor] = {}
        for ear in self._ears:
            if ear not in made:
                made[ear] = _hear(ear, [wave]).values[0]
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


def _hear(ear: Listener, waves: Sequence[np.ndarray]) -> Features:
    return ear.backbone.features(waves, ear.trailing_silence)


def _wave(utterance: Utterance) -> np.ndarray:
    return load_audio(utterance.audio, utterance.start, utterance.end)


def _seconds(utterance: Utterance) -> float:
    if utterance.duration is not None:
        return utterance.duration
    if utterance.end is not None:
        return utterance.end - (utterance.start or 0.0)
    return audio_duration(utterance.audio) - (utterance.start or 0.0)


def _pad(features: Sequence[Tensor]) -> Features:
    """Batch of single features ``[bins, frames]`` or ``[samples]``, zero beyond each one's end."""
    lengths = torch.tensor([feature.shape[-1] for feature in features], device=features[0].device)
    padded = pad_sequence([feature.movedim(-1, 0) for feature in features], batch_first=True)
    return Features(padded.movedim(1, -1), lengths)
