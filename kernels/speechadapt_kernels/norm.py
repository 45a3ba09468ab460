"""LayerNorm without weights, as operators whose weights are folded need it."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5  # as torch's default


def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with mean 0 and variance 1 over the last axis, and one over each one's deviation.

    Returns:
        Shape of ``x``; and ``[..., 1]``.
    """
    # On a CPU torch 2.13 takes nearly twice as long where it is given none.
    weight = x.new_ones(x.shape[-1]) if x.device.type == "cpu" else None
    normal, _, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, None, EPSILON)
    return normal, rstd
