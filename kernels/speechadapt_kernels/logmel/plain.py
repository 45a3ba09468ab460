"""The torch form: its FFT, and a product with the mel filters."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.logmel.settings import HOP, RANGE, SILENCE, WINDOW


def log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Log-mel features; args as :func:`speechadapt_kernels.logmel.operator.log_mel`."""
    window = _window(waves.device, waves.dtype)
    spectrum = torch.stft(waves, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    made = (filters @ power).clamp_(min=10**SILENCE).log10_()
    values = F.pad(made, (0, frames - made.shape[2]), value=SILENCE)
    beyond = torch.arange(frames, device=values.device) >= lengths[:, None, None]
    values.masked_fill_(beyond, SILENCE)
    loudest = values.amax(dim=(1, 2), keepdim=True)
    return values.clamp_(min=loudest - RANGE).add_(4.0).div_(4.0).masked_fill_(beyond, 0.0)


@cache
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(WINDOW, device=device, dtype=dtype)
