"""Training examples: features kept in memory where they never change, augmented where asked."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechadapt.audio import audio_duration, load_audio
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.data import Utterance, load_utterances
from speechadapt.errors import DataError
from speechadapt.features import FULL_FRAMES, HOP, Features
from speechadapt.progress import progress
from speechadapt.training.augment import change_speed, mix_at_snr, spec_augment
from speechadapt.training.config import TrainConfig

KEPT_SECONDS = 20_000.0  # of audio whose features are kept in memory, about 32 kB a second
_WINDOW_SECONDS = FULL_FRAMES * HOP / 16_000


class TrainingSet:
    """Utterances as batches of features.

    Args:
        backbone: Computes the features.
        utterances: With transcripts.
        config: Trailing silence and augmentation.

    Raises:
        DataError: No utterance at all, or one longer than Whisper's window.
        AudioError: A recording cannot be read.
    """

    def __init__(
        self, backbone: WhisperBackbone, utterances: Sequence[Utterance], config: TrainConfig
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
                    f"utterance {utterance.id}: {length:.1f} s long, Whisper hears "
                    f"{_WINDOW_SECONDS:.0f} s at once; cut it into shorter utterances"
                )
        slowest = min(config.augmentation.speed, default=1.0)
        self.seconds = [length / slowest + config.trailing_silence for length in lengths]
        noise = config.augmentation.noise
        self._noise = [_wave(u) for u in load_utterances(noise)] if noise else []
        self._kept: list[Tensor] | None = None
        if not config.augmentation.changes_audio and sum(lengths) <= KEPT_SECONDS:
            with progress(self.utterances, desc="features", unit="utt", leave=False) as bar:
                self._kept = [self._features([_wave(u)]).values[0] for u in bar]

    def batch(self, indices: Sequence[int], rng: random.Random) -> Features:
        """Features of these utterances; ``rng`` decides the augmentation."""
        if self._kept is not None:
            mel = _pad([self._kept[index] for index in indices])
        else:
            mel = self._features([self._augmented(self.utterances[i], rng) for i in indices])
        augmentation = self.config.augmentation
        if augmentation.time_masks or augmentation.frequency_masks:
            mel = spec_augment(mel, augmentation, rng)
        return mel

    def _features(self, waves: Sequence[np.ndarray]) -> Features:
        return self.backbone.features(waves, self.config.trailing_silence)

    def _augmented(self, utterance: Utterance, rng: random.Random) -> np.ndarray:
        wave, augmentation = _wave(utterance), self.config.augmentation
        if augmentation.speed:
            wave = change_speed(wave, rng.choice(augmentation.speed))
        if self._noise:
            wave = mix_at_snr(wave, rng.choice(self._noise), rng.uniform(*augmentation.snr), rng)
        return wave


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
