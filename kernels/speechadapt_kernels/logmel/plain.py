"""The torch form: its FFT, and a product with the mel filters."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from speechadapt_kernels.logmel.settings import HOP, RANGE, SILENCE, WINDOW


def log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Log-mel features; args as :func:`speechadapt_kernels.logmel.operator.log_mel`."""
    window = _window(waves.device, waves.dtype)
    spectrum = torch.stft(waves, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
    made = (filters @ spectrum.abs().square()).clamp(min=10**SILENCE).log10()

    values = made.new_full((len(waves), len(filters), frames), SILENCE)
    computed = min(frames, made.shape[2])
    values[..., :computed] = made[..., :computed]
    beyond = torch.arange(frames, device=values.device) >= lengths[:, None, None]
    values.masked_fill_(beyond, SILENCE)
    loudest = values.amax(dim=(1, 2), keepdim=True)
    values = (torch.maximum(values, loudest - RANGE) + 4.0) / 4.0
    return values.masked_fill_(beyond, 0.0)


@cache
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(WINDOW, device=device, dtype=dtype)
