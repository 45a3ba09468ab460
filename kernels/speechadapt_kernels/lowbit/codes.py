"""Matrices in 8 bits or 1 bit a weight.

- 8 bits: each row, or each column where there are fewer, has its own scale, its largest weight over
  127. Of both projections of a bottleneck that is one scale for each of its values.
- 1 bit (Jie et al. 2023, *Revisiting the Parameter Efficiency of Adapters from the Perspective of
  Precision Redundancy*): a weight is one of two values, the matrix's mean plus or minus
  ``sqrt(2 / pi)`` standard deviations, which loses the least squares of a normal distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BITS = (8, 1)
LEVEL = math.sqrt(2 / math.pi)


def to_codes(matrix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes ``[rows, columns]`` (int8, or bool for 1 bit) and scales, on the matrix's device.

    Args:
        matrix: ``[rows, columns]``.
        bits: 8 or 1.

    Returns:
        With 8 bits, as many scales as its shorter axis is long; with 1 bit mean and deviation.
    """
    matrix = matrix.detach().float()
    if bits == 8:
        scale = matrix.abs().amax(1 if _by_row(matrix.shape) else 0) / 127
        codes = (matrix / _beside(scale, matrix).clamp(min=torch.finfo(torch.float32).tiny)).round()
        return codes.to(torch.int8), scale
    mean, deviation = matrix.mean(), matrix.std(correction=0)
    return matrix >= mean, torch.stack((mean, deviation))


def from_codes(codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`to_codes`, ``[rows, columns]`` float32."""
    if bits == 8:
        return codes.float() * _beside(scale, codes)
    mean, deviation = scale
    return mean + deviation * LEVEL * (2.0 * codes.float() - 1.0)


def scale_count(shape: torch.Size | tuple[int, int], bits: int) -> int:
    """How many scales a matrix of such a shape has."""
    return min(shape) if bits == 8 else 2


def _by_row(shape: torch.Size) -> bool:
    return shape[0] <= shape[1]


def _beside(scale: Tensor, matrix: Tensor) -> Tensor:
    """Scales in a shape that broadcasts to the matrix."""
    return scale[:, None] if _by_row(matrix.shape) else scale
