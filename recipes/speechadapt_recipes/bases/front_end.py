"""How the narrow front end of the small wav2vec2 base starts: as a bank of band-pass filters.

A first layer that has to find its filters needs far more speech than there is here. Zeghidour et
al. 2018 (*Learning filterbanks from raw speech for phone recognition*) start theirs as Gabor
wavelets on the mel scale; all of it goes on learning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechadapt.audio import SAMPLE_RATE

_LOWEST, _HIGHEST = 60.0, 7600.0  # Hz


def gabor_filters(channels: int, kernel: int) -> Tensor:
    """Gaussian-windowed cosines, then sines, of frequencies evenly spaced in mel.

    Speech loses some 6 dB an octave, so a filter's gain grows with its frequency: every band then
    reaches the next layer about as loud.

    Args:
        channels: An even number; half cosines, half sines of the same frequencies.
        kernel: Length in samples.

    Returns:
        Weights ``[channels, 1, kernel]``.
    """
    bands = channels // 2
    low, high = _mel(_LOWEST), _mel(_HIGHEST)
    mels = torch.linspace(low, high, bands + 2, dtype=torch.float64)
    edges = 700 * (torch.pow(10.0, mels / 2595) - 1)
    centre, width = edges[1:-1, None], (edges[2:] - edges[:-2])[:, None] / 2
    time = (torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2) / SAMPLE_RATE
    # A Gaussian as wide in frequency as the mel band at half its height, or what the kernel holds.
    spread = math.sqrt(2 * math.log(2)) / (math.pi * width)
    window = torch.exp(-0.5 * (time / spread.clamp(max=kernel / SAMPLE_RATE / 4)) ** 2)
    phase = 2 * math.pi * centre * time
    filters = torch.cat((window * phase.cos(), window * phase.sin()))
    filters /= filters.norm(dim=1, keepdim=True)
    gain = (centre / centre[-1]).repeat(2, 1)
    return (filters * gain)[:, None].float()


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
