"""What the operator reads: codes with the bottleneck's axis first, scales along that axis.

A LayerNorm cannot be folded into codes, so the kernel scales each state before the product, around
a value of the same row: the product with the row's mean, which is subtracted again, then is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.bottleneck.folded import FoldedBottleneck, adapted, fold, owned, padded
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.dispatch import is_traced, transformed
from speechadapt_kernels.layout import by_run
from speechadapt_kernels.lowbit.codes import LEVEL, to_codes
from speechadapt_kernels.slotted import Slotted


@dataclass(frozen=True)
class LowBitMatrix(Slotted):
    """A projection of each slot, the axis of the bottleneck first: ``scale * code + offset``.

    Attributes:
        codes: int8 ``[slots, width, dim]``; or 8 signs of 1 bit each in a byte, uint8
            ``[slots, width, dim / 8]``, the first in the lowest bit (1 = +1, 0 = -1).
        scale: ``[slots, width]`` float32.
        offset: ``[slots, width]`` float32; zeros with 8 bits.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor

    def widened(self) -> Tensor:
        """As floats, ``[slots, width, dim]``."""
        return self._factors().mul(self.scale[..., None]).add_(self.offset[..., None])

    def gradients(self, widened: Tensor) -> tuple[Tensor, Tensor]:
        """Of scale and offset, from that of the widened matrix."""
        exact = widened.to(self.scale.dtype)
        return (exact * self._factors()).sum(-1), exact.sum(-1)

    def _factors(self) -> Tensor:
        """What scales are multiplied by, ``[slots, width, dim]``."""
        if self.codes.dtype != torch.uint8:
            return self.codes.float()
        kept = not is_traced(self.codes) and not transformed()
        signs = (_signs if kept else _signs.__wrapped__)(self.codes.device)
        return F.embedding(self.codes.int(), signs).flatten(-2)


@dataclass(frozen=True)
class FoldedLowBit:
    """Weights of the adapters in their slots, as the operator reads them; vectors in float32.

    Attributes:
        down: The down projection.
        down_sum: Sum of each row of ``down`` times ``norm_weight``, ``[slots, width]``; None = no
            LayerNorm. Its gradient is in those of ``norm_weight`` and of the scales and offsets.
        down_bias: ``[slots, width]``, with what the LayerNorm's bias gives.
        norm_weight: ``[slots, dim]``; None = no LayerNorm.
        up: The up projection, transposed.
        up_bias: ``[slots, dim]``.
    """

    down: LowBitMatrix
    down_sum: Tensor | None
    down_bias: Tensor
    norm_weight: Tensor | None
    up: LowBitMatrix
    up_bias: Tensor


def fold_lowbit(weights: BottleneckWeights, bits: int) -> FoldedLowBit:
    """Code the matrices of stacked adapters and make what the operator reads.

    Gradients flow to all but the matrices.

    Args:
        weights: Stacked, in float32.
        bits: 8 or 1.

    Raises:
        ValueError: A bottleneck is not narrower than the states, or those are no multiple of 64.
    """
    width, dim = weights.down.shape[1:]
    if width >= dim or dim % 64:
        raise ValueError(
            f"a bottleneck of {width} in {dim} values: expected a narrower one in a multiple of 64"
        )
    down = _coded(weights.down, bits)
    up = _coded(weights.up, bits)
    down_bias, down_sum = weights.down_bias.float(), None
    if weights.norm_weight is not None and weights.norm_bias is not None:
        wide = down.widened()[:, :width]
        down_bias = down_bias + (wide @ weights.norm_bias.float()[..., None]).squeeze(-1)
        sums = wide @ weights.norm_weight.detach().float()[..., None]
        down_sum = padded(sums.squeeze(-1), 1)
    norm = None if weights.norm_weight is None else owned(weights.norm_weight, torch.float32)
    down_bias, up_bias = (
        owned(bias, torch.float32) for bias in (padded(down_bias, 1), weights.up_bias)
    )
    return FoldedLowBit(down, down_sum, down_bias, norm, up, up_bias)


def forward(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    weights: FoldedLowBit,
    activation: str,
    scale: float,
    offsets: Tensor | None,
) -> Tensor:
    """The operator in torch, which widens the matrices of one adapter at a time."""
    exact = torch.promote_types(source.dtype, torch.float32)

    @lru_cache(maxsize=1)
    def of(slot: int) -> FoldedBottleneck:
        return _of(weights, slot, exact)

    def mine(rows: Tensor, past: Tensor, slot: int, out: Tensor | None) -> Tensor:
        return adapted(rows, past, of(slot), activation, scale, out)

    return by_run(source, base, slots, offsets, mine, learns=False)


def _of(weights: FoldedLowBit, slot: int, exact: torch.dtype) -> FoldedBottleneck:
    """The weights of one slot in that type, without the first axis."""
    down, up = (matrix.parts[slot].widened().to(exact) for matrix in (weights.down, weights.up))
    if weights.norm_weight is not None:
        down.mul_(weights.norm_weight[slot])
    sums = None if weights.down_sum is None else weights.down_sum[slot]
    down_bias, up_bias = weights.down_bias[slot].to(exact), weights.up_bias[slot].to(exact)
    return FoldedBottleneck(down, sums, down_bias, up, up_bias, len(down))


@cache
def _signs(device: torch.device) -> Tensor:
    """Of every byte there is, ``[256, 8]``."""
    byte, bit = (torch.arange(count, device=device) for count in (256, 8))
    return ((byte[:, None] >> bit) & 1).float() * 2 - 1


def widened(weights: FoldedLowBit, dtype: torch.dtype) -> FoldedBottleneck:
    """The same adapters for the operator on floats."""
    count, dim = weights.up_bias.shape
    plain = fold(
        BottleneckWeights(
            weights.down.widened(),
            weights.down_bias,
            weights.up.widened().mT,
            weights.up_bias,
            weights.norm_weight,
            None if weights.norm_weight is None else weights.up_bias.new_zeros(count, dim),
        ),
        dtype,
    )
    return plain


def _coded(matrices: Tensor, bits: int) -> LowBitMatrix:
    """Of ``[slots, ...]``, whichever of the other two axes is the bottleneck's."""
    turned, scales, offsets = [], [], []
    for matrix in matrices:
        codes, scale = to_codes(matrix, bits)
        codes = codes if codes.shape[0] < codes.shape[1] else codes.mT
        width = len(codes)
        if bits == 1:
            mean, deviation = scale
            codes = _packed(codes)
            offsets.append(padded(mean.expand(width), 0))
            scale = (deviation * LEVEL).expand(width)
        else:
            offsets.append(padded(scale.new_zeros(width), 0))
        turned.append(padded(codes, 0))
        scales.append(padded(scale, 0))
    return LowBitMatrix(torch.stack(turned).contiguous(), torch.stack(scales), torch.stack(offsets))


def _packed(signs: Tensor) -> Tensor:
    """Eight of ``[rows, columns]`` (bool) in a byte, uint8 ``[rows, columns / 8]``."""
    each = torch.arange(8, dtype=torch.uint8, device=signs.device)
    return (signs.view(len(signs), -1, 8).to(torch.uint8) << each).sum(-1).to(torch.uint8)
