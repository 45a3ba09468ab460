"""The definition, one whole utterance after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.conformer.weights import ConformerWeights


def naive_conformer(
    source: Tensor, base: Tensor, weights: ConformerWeights, slots: Tensor, scale: float = 1.0
) -> Tensor:
    """The adapter of its slot on each utterance.

    Args:
        source: What the adapters read, ``[batch, frames, dim]``.
        base: What their output is added to, same shape.
        weights: Stacked.
        slots: Adapter of each utterance, ``[batch]``, -1 = none.
        scale: Factor of the adapters' output.
    """
    parts = []
    for x, below, slot in zip(source, base, slots.tolist(), strict=True):
        if slot < 0:
            parts.append(below)
            continue
        w = {name: t[slot] for name, t in vars(weights).items() if t is not None}
        hidden = F.layer_norm(x, x.shape[-1:], w["norm_weight"], w["norm_bias"])
        hidden = F.glu(F.linear(hidden, w["down"], w["down_bias"]), -1)
        kernel = w["conv"].shape[-1]
        padded = F.pad(hidden.mT, (kernel - 1, 0))
        hidden = F.conv1d(padded, w["conv"][:, None], w["conv_bias"], groups=len(w["conv"])).mT
        inner = (w["inner_weight"], w["inner_bias"])
        if weights.mean is None:
            hidden = F.layer_norm(hidden, hidden.shape[-1:], *inner)
        else:
            hidden = F.batch_norm(hidden, w["mean"], w["var"], *inner)
        delta = F.linear(F.silu(hidden), w["up"], w["up_bias"])
        parts.append(below + scale * delta)
    return torch.stack(parts)
