"""AdapterFusion for inference, folded into the adapters' bottlenecks.

With ``u_n = s (B_n z_n + b_n)`` what adapter n gives, a frame's score is ``(W_q x + w)·W_k u_n``,
which is ``z_n·(H_n x + h_n) + β_n·x + c_n``; the value is ``V_n z_n + ν_n``. No product of the
width of the model with itself is left, and no output of an adapter is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate
from speechadapt_kernels.bottleneck.folded import EPSILON, fold
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.fusion.weights import FusionWeights


@dataclass(frozen=True)
class ScoreWeights:
    """What the scores are made with.

    Attributes:
        down: H, ``[adapters, width, dim]``.
        bias: h, ``[adapters, width]``.
        direct: β, ``[adapters, dim]``.
        constant: c, ``[adapters]``.
    """

    down: Tensor
    bias: Tensor
    direct: Tensor
    constant: Tensor


@dataclass(frozen=True)
class FoldedFusion:
    """What the fused operator reads. All but what is told otherwise in float32 at least.

    Attributes:
        down: Down projections with the LayerNorms' weights, in the states' type, ``[adapters,
            width, dim]``; width is padded with zeros to a power of two.
        down_sum: Sum of each row of ``down``, ``[adapters, width]``; None = no LayerNorm.
        down_bias: ``[adapters, width]``.
        value: V transposed, in the states' type, ``[adapters, width, dim]``.
        value_bias: ν, ``[adapters, dim]``.
        scores: None = the shares of the adapters are given.
    """

    down: Tensor
    down_sum: Tensor | None
    down_bias: Tensor
    value: Tensor
    value_bias: Tensor
    scores: ScoreWeights | None


def fold_fusion(
    weights: FusionWeights, dtype: torch.dtype, scale: float = 1.0, temperature: float = 1.0
) -> FoldedFusion:
    """Fold in float64, and round once.

    Args:
        weights: Of the adapters and the attention.
        dtype: Of the states that the operator will be given.
        scale: Of the adapters' outputs.
        temperature: By which scores are divided.
    """
    exact = torch.promote_types(dtype, torch.float32)
    up = scale * weights.adapters.up.double()  # [adapters, dim, width]
    up_bias = scale * weights.adapters.up_bias.double()
    image = weights.key.double().mT @ weights.query.double() / temperature
    constant = weights.key.double().mT @ weights.query_bias.double() / temperature
    value = weights.value.double()
    made = fold_shares(weights.adapters, dtype, scale)
    room = made.down.shape[1] - up.shape[-1]

    def wide(matrix: Tensor) -> Tensor:
        return F.pad(matrix.mT, (0, 0, 0, room)).to(dtype).contiguous()

    scores = ScoreWeights(
        wide(image.mT @ up),
        F.pad(constant @ up, (0, room)).to(exact),
        (up_bias @ image).to(exact),
        (up_bias @ constant).to(exact),
    )
    return FoldedFusion(
        made.down,
        made.down_sum,
        made.down_bias,
        wide(value @ up),
        (up_bias @ value.mT).to(exact),
        scores,
    )


def fold_shares(
    adapters: BottleneckWeights, dtype: torch.dtype, scale: float = 1.0
) -> FoldedFusion:
    """The same for shares that a router gives: adapters' own outputs, no attention.

    Args:
        adapters: Stacked.
        dtype: Of the states that the operator will be given.
        scale: Of the adapters' outputs.
    """
    made = fold(adapters, dtype)
    assert made.down_bias is not None and made.up_bias is not None
    up = (scale * made.up.double()).to(dtype)
    return FoldedFusion(made.down, made.down_sum, made.down_bias, up, scale * made.up_bias, None)


def forward(
    source: Tensor,
    base: Tensor,
    weights: FoldedFusion,
    activation: str,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The fused operator in torch; ``shares`` of the shape of the attention, or None."""
    count, width, _ = weights.down.shape
    exact = weights.down_bias.dtype
    x = source.to(exact)
    hidden = F.linear(x, weights.down.flatten(0, 1).to(exact))
    if weights.down_sum is not None:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        hidden = torch.rsqrt(variance + EPSILON) * (hidden - mean * weights.down_sum.flatten())
    z = activate(activation, hidden + weights.down_bias.flatten()).unflatten(-1, (count, width))
    if weights.scores is not None:
        scores = weights.scores
        reading = F.linear(x, scores.down.flatten(0, 1).to(exact), scores.bias.flatten())
        shares = (z * reading.unflatten(-1, (count, width))).sum(-1)
        shares = (shares + F.linear(x, scores.direct) + scores.constant).softmax(-1)
    assert shares is not None
    shares = shares.to(exact)
    mixed = (shares[..., None] * z).flatten(-2) @ weights.value.flatten(0, 1).to(exact)
    out = base + mixed + shares @ weights.value_bias
    return out.to(base.dtype).contiguous(), shares
