"""The definition, one utterance after the other, by a sum over each window, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechadapt_kernels.logmel.settings import FREQUENCIES, HOP, RANGE, SILENCE, WINDOW


def naive_log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Log-mel features; args as :func:`speechadapt_kernels.logmel.operator.log_mel`."""
    samples = waves.shape[1]
    turn = 2 * math.pi / WINDOW * torch.arange(WINDOW, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(turn)
    angles = turn[:, None] * torch.arange(FREQUENCIES)
    values = torch.zeros(len(waves), len(filters), frames, dtype=torch.float64)
    for wave, length, made in zip(waves.double(), lengths.tolist(), values, strict=True):
        made[:, :length] = SILENCE
        for frame in range(min(length, samples // HOP)):
            at = (torch.arange(WINDOW) + frame * HOP - WINDOW // 2).abs()
            at = torch.where(at < samples, at, 2 * (samples - 1) - at)
            cut = (wave[at] * window)[:, None]
            power = (cut * angles.cos()).sum(0) ** 2 + (cut * angles.sin()).sum(0) ** 2
            made[:, frame] = (filters.double() @ power).clamp(min=10**SILENCE).log10()
        loudest = made[:, :length].amax()
        made[:, :length] = (made[:, :length].clamp(min=loudest - RANGE) + 4) / 4
    return values
