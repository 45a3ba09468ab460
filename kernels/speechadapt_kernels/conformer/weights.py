"""What the forms of the conformer adapter are given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ConformerWeights:
    """Weights of n adapters, stacked.

    Attributes:
        norm_weight: ``[adapters, dim]``.
        norm_bias: ``[adapters, dim]``.
        down: Values, then gates, ``[adapters, 2 * channels, dim]``.
        down_bias: ``[adapters, 2 * channels]``.
        conv: Depthwise, ``[adapters, channels, kernel]``.
        conv_bias: ``[adapters, channels]``.
        inner_weight: Of the norm behind the convolution, ``[adapters, channels]``.
        inner_bias: ``[adapters, channels]``.
        mean: Running statistics of a BatchNorm, ``[adapters, channels]``; None = a LayerNorm.
        var: ``[adapters, channels]``, or None.
        up: ``[adapters, dim, channels]``.
        up_bias: ``[adapters, dim]``.
    """

    norm_weight: Tensor
    norm_bias: Tensor
    down: Tensor
    down_bias: Tensor
    conv: Tensor
    conv_bias: Tensor
    inner_weight: Tensor
    inner_bias: Tensor
    mean: Tensor | None
    var: Tensor | None
    up: Tensor
    up_bias: Tensor
