"""LoRA in a mixed batch as one launch, whatever number of fused layers it is beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.bottleneck.folded import FoldedBottleneck, as_read, owned, padded
from speechadapt_kernels.bottleneck.operator import fused_bottleneck


def fold_lora(down: Sequence[Tensor], up: Sequence[Tensor], dtype: torch.dtype) -> FoldedBottleneck:
    """Make what :func:`fused_lora` reads; gradients flow through.

    Args:
        down: For each layer (slice) that reads the source, ``[slots, rank, dim]``.
        up: For each, ``[slots, out, rank]``; all of the same width.
        dtype: Of the states that the operator will be given.
    """
    rank = max(matrix.shape[1] for matrix in down)
    a = torch.cat([F.pad(m, (0, 0, 0, rank - m.shape[1])) for m in down], 1)
    b = torch.cat([F.pad(m.mT, (0, 0, 0, rank - m.shape[2])) for m in up], 1)
    a, b = padded(a, 1), padded(b, 1)
    return FoldedBottleneck(
        as_read(a, dtype),
        None,
        None,
        owned(b, dtype),
        None,
        rank if len(down) > 1 else a.shape[1],
        len(down),
    )


def fused_lora(
    source: Tensor,
    base: Tensor,
    weights: FoldedBottleneck,
    slots: Tensor,
    scale: float = 1.0,
    offsets: Tensor | None = None,
    longest: int = 0,
) -> Tensor:
    """``base + scale * up(down(source))``, each utterance with the adapter of its slot.

    Args:
        source: What the linear layers read, ``[batch, frames, dim]`` or packed ``[frames, dim]``.
        base: What they gave, side by side, ``[..., slices * out]``.
        weights: As :func:`fold_lora` makes them.
        slots: Adapter of each utterance, ``[batch]``, int32, -1 = none.
        scale: Factor of the adapters' output.
        offsets: Where each utterance of a packed batch begins, ``[batch + 1]``, int32.
        longest: As :func:`fused_bottleneck` takes it.

    Raises:
        ValueError: Shapes do not go together.
    """
    return fused_bottleneck(source, weights, slots, "identity", scale, base, offsets, longest)
