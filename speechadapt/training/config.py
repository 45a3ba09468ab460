"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from speechadapt.errors import ConfigError
from speechadapt.typed import check_types


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training audio; everything is off by default.

    Attributes:
        speed: Speeds drawn for each utterance, e.g. (0.9, 1.0, 1.1) (Ko et al. 2015); () = none.
        noise: Kaldi data dir or JSONL manifest of noise recordings; None = none.
        snr: Lowest and highest signal-to-noise ratio of mixed-in noise, in dB.
        time_masks: SpecAugment time masks for each utterance (Park et al. 2019); in waves they
            are silence.
        frequency_masks: SpecAugment frequency masks for each utterance.
    """

    speed: tuple[float, ...] = ()
    noise: str | None = None
    snr: tuple[float, float] = (5.0, 20.0)
    time_masks: int = 0
    frequency_masks: int = 0

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "augmentation")
        if any(not 0.5 <= speed <= 2.0 for speed in self.speed):
            raise ConfigError(f"augmentation: speed is {self.speed}, expected factors in 0.5 … 2")
        if not -math.inf < self.snr[0] <= self.snr[1] < math.inf:
            raise ConfigError(f"augmentation: snr is {self.snr}, expected lowest and highest dB")
        for name in ("time_masks", "frequency_masks"):
            if (count := getattr(self, name)) < 0:
                raise ConfigError(f"augmentation: {name} is {count}, expected 0 or more")

    @property
    def masks(self) -> bool:
        """Whether parts of the features are masked."""
        return bool(self.time_masks or self.frequency_masks)

    @property
    def changes_audio(self) -> bool:
        """Whether waves differ from epoch to epoch, so that features cannot be kept."""
        return bool(self.speed) or self.noise is not None


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps.
        batch_seconds: Seconds of padded audio in a batch.
        accumulate: Batches whose gradients are added up for one step.
        learning_rate: Peak of AdamW's learning rate.
        warmup: Share of the steps over which the rate rises from 0; it then falls linearly to 0.
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
        trailing_silence: Seconds of silence after each utterance; the adapter learns to need only
            these.
        seed: Of everything random.
        eval_every: Steps between evaluations on the development set.
        patience: Evaluations without a lower error before the run stops; 0 = never.
        checkpoint_every: Steps between checkpoints, and so the most work a kill can lose.
        augmentation: What is done to the audio.
    """

    steps: int = 300
    batch_seconds: float = 40.0
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    trailing_silence: float = 0.5
    seed: int = 0
    eval_every: int = 100
    patience: int = 0
    checkpoint_every: int = 25
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "training")
        lowest = {
            "steps": 1,
            "batch_seconds": 1.0,
            "accumulate": 1,
            "learning_rate": 0.0,
            "weight_decay": 0.0,
            "trailing_silence": 0.0,
            "eval_every": 1,
            "patience": 0,
            "checkpoint_every": 1,
            "clip": 1e-6,
            "warmup": 0.0,
        }
        for name, least in lowest.items():
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                raise ConfigError(f"training: {name} is {value}, expected {least} or more")
        if abs(self.seed) >= 1 << 32:  # what random generators take
            raise ConfigError(f"training: seed is {self.seed}, expected one of at most 32 bits")
        for name, most in (("warmup", 1.0), ("trailing_silence", 30.0)):
            if getattr(self, name) > most:
                raise ConfigError(f"training: {name} is {getattr(self, name)}, at most {most}")

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0): linear warm-up, then linear decay."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (self.steps - step) / max(1, self.steps - rising)
