"""The definition, one utterance after the other, by sums over windows, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechadapt_kernels.logmel.settings import FREQUENCIES, HOP, RANGE, SILENCE, WINDOW


def naive_log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Log-mel features; args as :func:`speechadapt_kernels.logmel.operator.log_mel`."""
    samples = waves.shape[1]
    within = torch.arange(WINDOW)
    turn = 2 * math.pi / WINDOW * within.double()
    window = 0.5 - 0.5 * torch.cos(turn)
    angles = turn[:, None] * torch.arange(FREQUENCIES)
    values = torch.zeros(len(waves), len(filters), frames, dtype=torch.float64)
    for wave, length, made in zip(waves.double(), lengths.tolist(), values, strict=True):
        heard = min(length, samples // HOP)
        at = (within + torch.arange(heard)[:, None] * HOP - WINDOW // 2).abs()
        cut = wave[torch.where(at < samples, at, 2 * (samples - 1) - at)] * window
        power = (cut @ angles.cos()) ** 2 + (cut @ angles.sin()) ** 2
        made[:, :length] = SILENCE
        made[:, :heard] = (filters.double() @ power.mT).clamp(min=10**SILENCE).log10()
        loudest = made[:, :length].amax()
        made[:, :length] = (made[:, :length].clamp(min=loudest - RANGE) + 4) / 4
    return values
