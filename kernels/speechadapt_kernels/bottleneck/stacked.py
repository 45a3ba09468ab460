"""The plain torch form, on batches laid out by adapter (see ``speechadapt_kernels.stacked``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.stacked import add_linear, layer_norm, linear


@dataclass(frozen=True)
class BottleneckWeights:
    """Weights of n adapters, stacked.

    Attributes:
        down: ``[adapters, bottleneck, dim]``.
        down_bias: ``[adapters, bottleneck]``.
        up: ``[adapters, dim, bottleneck]``.
        up_bias: ``[adapters, dim]``.
        norm_weight: ``[adapters, dim]``, or None for no inner LayerNorm.
        norm_bias: ``[adapters, dim]``, or None for no inner LayerNorm.
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
    gate: Tensor | None = None,
) -> Tensor:
    """Apply to each row its own adapter.

    Args:
        source: What the adapters read, ``[adapters, rows, frames, dim]``.
        base: What their output is added to, same shape or one that broadcasts to it.
        weights: Stacked.
        activation: A key of :data:`ACTIVATIONS`.
        scale: Factor of the adapters' output.
        dropout: Probability on the bottleneck; 0 outside training.
        gate: Factor of the adapters' output for each frame, ``[adapters, rows, frames, 1]``.
    """
    if weights.norm_weight is not None and weights.norm_bias is not None:
        source = layer_norm(source, weights.norm_weight, weights.norm_bias)
    hidden = ACTIVATIONS[activation](linear(source, weights.down, weights.down_bias))
    if dropout:
        hidden = F.dropout(hidden, dropout)
    # One token at a time, a sum beside the product is quicker than one in it.
    whole = base.shape[:-1] == hidden.shape[:-1] and hidden.shape[2] > 1
    if gate is None and whole and not torch.is_grad_enabled():
        return add_linear(base, hidden, weights.up, scale, weights.up_bias)
    delta = linear(hidden, weights.up, weights.up_bias)
    if gate is not None:
        delta = gate * delta
    return base + (delta if scale == 1.0 else scale * delta)
