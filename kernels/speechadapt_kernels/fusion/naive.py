"""The definition of AdapterFusion (Pfeiffer et al. 2021, section 3.2), each output in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate
from speechadapt_kernels.fusion.weights import FusionWeights


def naive_fusion(
    source: Tensor,
    base: Tensor,
    weights: FusionWeights,
    activation: str,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """``base`` + the values of the adapters' outputs, weighed by attention.

    Args: as :func:`speechadapt_kernels.fusion.operator.fused_fusion`.

    Returns:
        Shape of ``base``, and the attention ``[..., adapters]``.
    """
    adapters = weights.adapters
    outputs = []
    for n in range(len(adapters.down)):
        x = source
        if adapters.norm_weight is not None and adapters.norm_bias is not None:
            x = F.layer_norm(x, x.shape[-1:], adapters.norm_weight[n], adapters.norm_bias[n])
        z = activate(activation, F.linear(x, adapters.down[n], adapters.down_bias[n]))
        outputs.append(scale * F.linear(z, adapters.up[n], adapters.up_bias[n]))
    stacked = torch.stack(outputs, -2)  # [..., adapters, dim]
    query = F.linear(source, weights.query, weights.query_bias)
    scores = (query[..., None, :] * F.linear(stacked, weights.key)).sum(-1) / temperature
    attention = scores.softmax(-1)
    mixed = (attention[..., None] * F.linear(stacked, weights.value)).sum(-2)
    return base + mixed, attention
