"""Bottleneck adapter: ``base + scale * up(act(down(norm(source))))``, one adapter or a mixed batch.

This is the plain torch reference. Row ``b`` of a mixed batch uses adapter ``slots[b]``; -1 leaves
the row as it is. Weights of several adapters are stacked on a first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass(frozen=True)
class BottleneckWeights:
    """Weights of one adapter, or of n adapters stacked (then every shape starts with ``n``).

    Attributes:
        down: ``[bottleneck, dim]``.
        down_bias: ``[bottleneck]``.
        up: ``[dim, bottleneck]``.
        up_bias: ``[dim]``.
        norm_weight: ``[dim]``, or None for no inner LayerNorm.
        norm_bias: ``[dim]``, or None for no inner LayerNorm.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None


def bottleneck(
    source: Tensor,
    base: Tensor,
    weights: BottleneckWeights,
    activation: str,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Apply one adapter to every row.

    Args:
        source: What the adapter reads, ``[batch, frames, dim]``.
        base: What its output is added to, ``[batch, frames, dim]``.
        weights: Of one adapter.
        activation: A key of :data:`ACTIVATIONS`.
        scale: Factor of the adapter's output.
        dropout: Probability on the bottleneck; 0 outside training.
    """
    if weights.norm_weight is not None:
        source = F.layer_norm(source, source.shape[-1:], weights.norm_weight, weights.norm_bias)
    hidden = ACTIVATIONS[activation](F.linear(source, weights.down, weights.down_bias))
    if dropout:
        hidden = F.dropout(hidden, dropout)
    delta = F.linear(hidden, weights.up, weights.up_bias)
    return base + (delta if scale == 1.0 else scale * delta)


def mixed_bottleneck(
    source: Tensor,
    base: Tensor,
    weights: BottleneckWeights,
    slots: Tensor,
    activation: str,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Apply to each row its own adapter.

    Args:
        source: ``[batch, frames, dim]``.
        base: ``[batch, frames, dim]``.
        weights: Of n adapters, stacked.
        slots: Adapter of each row, ``[batch]`` int64 in -1 … n-1; -1 returns the row bit-equal.
        activation: A key of :data:`ACTIVATIONS`.
        scale: Factor of the adapters' output.
        dropout: Probability on the bottleneck; 0 outside training.
    """
    rows = (slots >= 0).nonzero().squeeze(1)
    chosen = slots[rows]
    x = source[rows]
    if weights.norm_weight is not None and weights.norm_bias is not None:
        x = F.layer_norm(x, x.shape[-1:])
        x = torch.addcmul(weights.norm_bias[chosen, None], x, weights.norm_weight[chosen, None])
    hidden = torch.baddbmm(weights.down_bias[chosen, None], x, weights.down[chosen].mT)
    hidden = ACTIVATIONS[activation](hidden)
    if dropout:
        hidden = F.dropout(hidden, dropout)
    delta = torch.baddbmm(weights.up_bias[chosen, None], hidden, weights.up[chosen].mT)
    return base.index_add(0, rows, delta if scale == 1.0 else scale * delta)
