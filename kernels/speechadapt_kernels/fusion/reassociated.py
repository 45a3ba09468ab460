"""AdapterFusion for training: the same sums in another order, by autograd.

Scores and mixtures are taken in the adapters' bottlenecks. Of what is as wide as the model, there
are the query, its image under the key and the mixture, once each, not one for each adapter.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate
from speechadapt_kernels.fusion.weights import FusionWeights
from speechadapt_kernels.norm import normalised


def reassociated_fusion(
    source: Tensor,
    base: Tensor,
    weights: FusionWeights,
    activation: str,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The same as :func:`speechadapt_kernels.fusion.naive.naive_fusion`."""
    adapters = weights.adapters
    count, width, _ = adapters.down.shape
    down, bias = adapters.down, adapters.down_bias
    x = source
    if adapters.norm_weight is not None and adapters.norm_bias is not None:
        # All adapters read the same states, so they share the mean and the variance of each.
        x, _ = normalised(source)
        bias = bias + (down @ adapters.norm_bias[..., None]).squeeze(-1)
        down = down * adapters.norm_weight[:, None]
    z = activate(activation, F.linear(x, down.flatten(0, 1), bias.flatten()))
    up = scale * adapters.up.permute(1, 0, 2).flatten(1)  # [dim, adapters * width]
    up_bias = scale * adapters.up_bias
    image = F.linear(source, weights.query, weights.query_bias) @ weights.key / temperature
    seen = (z * (image @ up)).unflatten(-1, (count, width)).sum(-1)
    attention = (seen + F.linear(image, up_bias)).softmax(-1)
    weighed = attention[..., None] * z.unflatten(-1, (count, width))
    mixture = F.linear(weighed.flatten(-2), up) + attention @ up_bias
    return base + F.linear(mixture, weights.value), attention
