"""What the forms of AdapterFusion are given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speechadapt_kernels.bottleneck.stacked import BottleneckWeights


@dataclass(frozen=True)
class FusionWeights:
    """Weights of n adapters and of the attention over them, at one site.

    The key's bias is not there: it adds the same to every score of a frame.

    Attributes:
        adapters: The fused adapters, stacked.
        query: ``[dim, dim]``.
        query_bias: ``[dim]``.
        key: ``[dim, dim]``.
        value: ``[dim, dim]``, without a bias.
    """

    adapters: BottleneckWeights
    query: Tensor
    query_bias: Tensor
    key: Tensor
    value: Tensor
