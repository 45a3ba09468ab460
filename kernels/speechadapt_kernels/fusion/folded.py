"""AdapterFusion folded into the adapters' bottlenecks, and its way back.

With ``u_n = s (B_n z_n + b_n)`` what adapter n gives, a frame's score is ``(W_q x + w)·W_k u_n``,
which is ``z_n·(H_n x + h_n) + β_n·x + c_n``; the value is ``V_n z_n + ν_n``. No product of the
width of the model with itself is left, and no output of an adapter is ever made, nor its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.activations import activate, slope
from speechadapt_kernels.bottleneck.folded import Projection, fold, owned, padded, project
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
        down_sum: Sum of each row of ``down``, ``[adapters, width]``; None = no LayerNorm. Its
            gradient is in that of ``down``.
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
    """Fold in float64, and round once; gradients flow through.

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

    def wide(matrix: Tensor) -> Tensor:
        return owned(padded(matrix.mT, 1), dtype)

    scores = ScoreWeights(
        wide(image.mT @ up),
        padded(constant @ up, 1).to(exact),
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
    down = made.down.contiguous()
    return FoldedFusion(down, made.down_sum, made.down_bias, up, scale * made.up_bias, None)


def forward(
    source: Tensor,
    base: Tensor,
    weights: FoldedFusion,
    activation: str,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The fused operator in torch; ``shares`` of the shape of the attention, or None."""
    exact = weights.down_bias.dtype
    made = _passed(source.to(exact), weights, activation, shares)
    mixed = made.weighed.flatten(-2) @ weights.value.flatten(0, 1).to(exact)
    out = base + mixed + made.shares @ weights.value_bias
    return out.to(base.dtype).contiguous(), made.shares


def backward(
    gradient: Tensor,
    of_shares: Tensor,
    source: Tensor,
    weights: FoldedFusion,
    activation: str,
    shares: Tensor | None,
) -> tuple[Tensor, FoldedFusion, Tensor]:
    """Gradients of the source (without what goes past the adapters), the weights and the shares.

    Frames whose gradients are all zero, such as padding, give none, whatever they hold.
    """
    count, width, _ = weights.down.shape
    exact = weights.down_bias.dtype
    dy, dp = (each.flatten(0, -2).to(exact) for each in (gradient, of_shares))
    silent = ~(dy.any(-1, keepdim=True) | dp.any(-1, keepdim=True))
    x = source.flatten(0, -2).to(exact).masked_fill(silent, 0)
    if shares is not None:
        shares = shares.flatten(0, -2).masked_fill(silent, 0)
    made = _passed(x, weights, activation, shares)
    pulled = (dy @ weights.value.flatten(0, 1).to(exact).mT).unflatten(-1, (count, width))
    dp = dp + (pulled * made.z).sum(-1) + dy @ weights.value_bias.mT
    dz, past, of_scores = made.shares[..., None] * pulled, None, None
    if weights.scores is not None and made.reading is not None:
        de = made.shares * (dp - (made.shares * dp).sum(-1, keepdim=True))
        dz = dz + de[..., None] * made.reading
        read = (de[..., None] * made.z).flatten(-2)
        past = read @ weights.scores.down.flatten(0, 1).to(exact) + de @ weights.scores.direct
        of_scores = ScoreWeights(
            (read.mT @ x).view(weights.down.shape).to(weights.down.dtype),
            read.sum(0).view(count, width),
            de.mT @ x,
            de.sum(0),
        )
    dh = dz.flatten(-2) * slope(activation, made.hidden)
    below, down = made.projection.backward(dh)
    below = below if past is None else below + past
    return (
        below.view(source.shape).to(source.dtype),
        FoldedFusion(
            down.view(weights.down.shape).to(weights.down.dtype),
            None,
            dh.sum(0).view(count, width),
            (made.weighed.flatten(-2).mT @ dy).view(weights.value.shape).to(weights.value.dtype),
            made.shares.mT @ dy,
            of_scores,
        ),
        dp.view(of_shares.shape),
    )


@dataclass(frozen=True)
class _Passed:
    """What rows are on their way to the mixture.

    Attributes:
        projection: Through all down projections, side by side.
        hidden: Before the activation, ``[..., adapters * width]``.
        z: Behind it, ``[..., adapters, width]``.
        reading: What z is scored by, ``H x + h``, same shape; None = the shares are given.
        shares: ``[..., adapters]``.
    """

    projection: Projection
    hidden: Tensor
    z: Tensor
    reading: Tensor | None
    shares: Tensor

    @property
    def weighed(self) -> Tensor:
        """Each bottleneck in its share."""
        return self.shares[..., None] * self.z


def _passed(x: Tensor, weights: FoldedFusion, activation: str, shares: Tensor | None) -> _Passed:
    apart = weights.down.shape[:2]
    sums = None if weights.down_sum is None else weights.down_sum.flatten()
    projection = project(x, weights.down.flatten(0, 1).to(x.dtype), sums)
    hidden = projection.hidden + weights.down_bias.flatten()
    z = activate(activation, hidden).unflatten(-1, apart)
    if weights.scores is None:
        assert shares is not None
        return _Passed(projection, hidden, z, None, shares.to(x.dtype))
    scores = weights.scores
    reading = F.linear(x, scores.down.flatten(0, 1).to(x.dtype), scores.bias.flatten())
    reading = reading.unflatten(-1, apart)
    scored = (z * reading).sum(-1) + F.linear(x, scores.direct) + scores.constant
    return _Passed(projection, hidden, z, reading, scored.softmax(-1))
