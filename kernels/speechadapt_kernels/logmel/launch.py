"""How the Triton kernels of log-mel features are launched."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from speechadapt_kernels.logmel import kernels
from speechadapt_kernels.logmel.settings import FREQUENCIES, HOP, RANGE, SILENCE, WINDOW
from speechadapt_kernels.plan import tiles_for

DISTANCES = 208  # from the middle of a window: its half, padded to whole blocks
BLOCK_DISTANCES = 16
PADDED_FREQUENCIES = 224
BLOCK = 1024  # values of a program that scales


def log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Two launches: the loudest of an utterance must be known before it is scaled."""
    waves, lengths, bins = waves.contiguous(), lengths.contiguous(), len(filters)
    tiles = tiles_for(
        "logmel.spectrum",
        waves.device,
        1,
        len(waves) * frames,
        (PADDED_FREQUENCIES,),
        waves.dtype,
    )
    parts = triton.cdiv(frames, tiles.frames)
    values = torch.empty(len(waves), bins, frames, dtype=torch.float32, device=waves.device)
    loudest = torch.empty(len(waves), parts, dtype=torch.float32, device=waves.device)
    kernels.spectrum_kernel[(parts, len(waves))](
        waves,
        *_waves_of_windows(waves.device),
        F.pad(filters, (0, PADDED_FREQUENCIES - FREQUENCIES)),
        lengths,
        values,
        loudest,
        waves.shape[1],
        frames,
        SILENCE,
        HOP=HOP,
        DISTANCES=DISTANCES,
        FREQUENCIES=PADDED_FREQUENCIES,
        BINS=bins,
        BLOCK_BINS=triton.next_power_of_2(bins),
        BLOCK_DISTANCES=BLOCK_DISTANCES,
        **tiles.settings(),
    )
    kernels.scale_kernel[(triton.cdiv(frames, BLOCK), bins, len(waves))](
        values,
        loudest,
        lengths,
        frames,
        RANGE,
        TILES=parts,
        BLOCK_TILES=triton.next_power_of_2(parts),
        BLOCK=BLOCK,
    )
    return values


@cache
def _waves_of_windows(device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines times the window, ``[distance from its middle, frequency]``.

    Half a cosine at the middle, which the kernel adds to itself; zero in what fills the blocks up.
    """
    distance = torch.arange(DISTANCES, dtype=torch.float64)
    turn = 2 * math.pi / WINDOW * distance
    window = torch.where(distance < WINDOW // 2, 0.5 + 0.5 * turn.cos(), 0.0)
    window[0] = 0.5
    frequency = torch.arange(PADDED_FREQUENCIES)
    angles = turn[:, None] * frequency
    weights = window[:, None] * (frequency < FREQUENCIES)
    # A sine at the middle meets a difference of 0, whatever its window.
    cosines, sines = weights * angles.cos(), weights * angles.sin()
    return cosines.float().to(device), sines.float().to(device)
