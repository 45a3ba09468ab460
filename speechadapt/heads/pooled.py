"""What heads with one answer for a whole utterance share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.errors import ConfigError
from speechadapt.heads.head import Head, linear

POOLINGS = ("mean", "summary")
"""Over the valid positions, or over AST's two summary tokens."""


class PooledHead(Head):
    """Mean of the states, a LayerNorm (``norm.weight``, ``norm.bias``; a base's own head may have
    none), one linear layer (``proj.weight`` ``[outputs, dim]``, ``proj.bias``)."""

    def outputs(self, encoded: Encoded) -> Tensor:
        """``[batch, outputs]``."""
        pooled = self._pool(self.read(encoded), encoded.lengths)
        if "norm.weight" in self.tensors:
            weight, bias = self.tensors["norm.weight"], self.tensors["norm.bias"]
            pooled = F.layer_norm(pooled, pooled.shape[-1:], weight, bias, self.config.epsilon)
        logits = F.linear(pooled, self.tensors["proj.weight"], self.tensors["proj.bias"])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _pool(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.config.pooling == "summary":
            return (states[:, 0] + states[:, 1]) / 2
        valid = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return states.masked_fill(~valid[..., None], 0.0).sum(1) / lengths[:, None]


def fresh_tensors(
    config: Any, outputs: int, dim: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Of a head that knows nothing yet; layers differ in size, so what it reads is normalised."""
    return {
        "norm.weight": torch.ones(dim),
        "norm.bias": torch.zeros(dim),
        **linear(outputs, dim, config.layers, generator),
    }


def check_pooling(pooling: str) -> None:
    """Raise :class:`ConfigError` about an unknown one."""
    if pooling not in POOLINGS:
        raise ConfigError(f"head: pooling is {pooling!r}, expected {' or '.join(POOLINGS)}")
