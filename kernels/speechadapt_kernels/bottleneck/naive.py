"""The definition, one utterance after the other, in whatever precision it is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.layout import spans


def naive_bottleneck(
    source: Tensor,
    weights: BottleneckWeights,
    slots: Tensor,
    activation: str,
    scale: float = 1.0,
    base: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """``base + scale * up(act(down(norm(source))))``, each utterance with the adapter of its slot.

    Args: as :func:`speechadapt_kernels.bottleneck.operator.fused_bottleneck`.
    """
    base = source if base is None else base
    rows, bases, parts = source.flatten(0, -2), base.flatten(0, -2), []
    for _, slot, span in spans(source, slots, offsets):
        x = rows[span]
        if slot < 0:
            parts.append(bases[span])
            continue
        if weights.norm_weight is not None and weights.norm_bias is not None:
            x = F.layer_norm(x, x.shape[-1:], weights.norm_weight[slot], weights.norm_bias[slot])
        z = ACTIVATIONS[activation](F.linear(x, weights.down[slot], weights.down_bias[slot]))
        delta = F.linear(z, weights.up[slot], weights.up_bias[slot])
        parts.append(bases[span] + scale * delta)
    return torch.cat(parts).view(source.shape)
