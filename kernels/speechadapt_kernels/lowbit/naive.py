"""The definition: the plain bottleneck with the values that the codes stand for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.lowbit.codes import from_codes, to_codes


def naive_lowbit(
    source: Tensor,
    weights: BottleneckWeights,
    bits: int,
    slots: Tensor,
    activation: str,
    scale: float = 1.0,
    base: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """``base + scale * up(act(down(norm(source))))`` with rounded matrices.

    Args: as :func:`speechadapt_kernels.lowbit.operator.fused_lowbit`, and ``weights`` and ``bits``
        as of :func:`speechadapt_kernels.lowbit.folded.fold_lowbit`.
    """

    def rounded(matrices: Tensor) -> Tensor:
        made = [from_codes(*to_codes(matrix, bits), bits) for matrix in matrices]
        return torch.stack(made).to(source.dtype)

    weights = replace(weights, down=rounded(weights.down), up=rounded(weights.up))
    return naive_bottleneck(source, weights, slots, activation, scale, base, offsets)
