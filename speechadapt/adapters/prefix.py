"""Prefix tuning (Li and Liang 2021) and deep prompt tuning (Jia et al. 2022, section 3.2): keys and
values that every position may attend to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import AttentionBatch, Family, SiteBatch
from speechadapt.backbones.base import Attention, Site


@dataclass(frozen=True)
class PrefixConfig(AdapterConfig):
    """So many further keys and values in an attention.

    A site of width D with H heads has ``2·length·D`` parameters (keys and values) or ``length·D``
    (states), ``H`` more with the gate. As in the paper, cross-attention has keys and values too
    where there is one. Keys and values are learnt directly: the paper's reparametrisation, a
    perceptron that makes them while training, is left out.

    Attributes:
        length: How many.
        learns: ``keys`` and values themselves (prefix tuning), or ``states`` of which the frozen
            projections make them (deep prompt tuning: new prompts for each layer).
        gate: Attend to them with a softmax of their own, times ``tanh(gate)`` of each head, which
            starts at zero (Zhang et al. 2024, *LLaMA-Adapter*, section 3.2). Without it they share
            the softmax of the others, and a fresh adapter takes attention from these: of n
            positions a head attends to evenly, about ``length / (n + length)``.
    """

    method: ClassVar[str] = "prefix"

    points: tuple[str, ...] = ("*.kv",)
    length: int = 16
    learns: str = "keys"
    gate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.length > 0, "length", "1 or more")
        self.check(self.learns in ("keys", "states"), "learns", "keys or states")


class Prefix(Family):
    """The family of :class:`PrefixConfig`."""

    attends: ClassVar = True

    def shares_softmax(self, config: PrefixConfig) -> bool:
        """Without the gate."""
        return not config.gate

    def init(
        self, config: PrefixConfig, site: Site, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Small random numbers behind a gate that is shut. Without a gate values start at zero."""
        assert site.attention is not None  # only such sites are offered to it
        shape = (config.length, site.dim)
        if config.learns == "states":
            tensors = {"state": 0.02 * torch.randn(shape[0], site.input_dim, generator=generator)}
        else:
            key, value = (0.02 * torch.randn(*shape, generator=generator) for _ in range(2))
            tensors = {"key": key, "value": value if config.gate else torch.zeros(shape)}
        if config.gate:
            tensors["gate"] = torch.zeros(site.attention.heads)
        return tensors

    def apply(
        self, config: PrefixConfig, weights: Mapping[str, Tensor], batch: SiteBatch
    ) -> Tensor:
        """What the attention gave, and what it would give for these keys and values."""
        assert isinstance(batch, AttentionBatch)
        if config.learns == "states":
            key, value = _project(weights["state"], batch.attention)
        else:
            key, value = weights["key"], weights["value"]
        # [adapters, 1, heads, length, head dim]: the rows of an adapter share them
        key, value = (batch.by_head(x[:, None]) for x in (key, value))
        scores = batch.by_head(batch.source) @ key.mT * batch.scale
        read = scores.softmax(-1) @ value
        target = batch.by_head(batch.target)
        if config.gate:
            gate = weights["gate"].tanh()[:, None, :, None, None]
            return (target + gate * read).transpose(2, 3).flatten(3)
        assert batch.log_sum is not None
        mine = scores.logsumexp(-1, keepdim=True)
        total = torch.logaddexp(batch.log_sum, mine)
        mixed = target * (batch.log_sum - total).exp() + read * (mine - total).exp()
        batch.log_sum = total  # what further adapters share the softmax with
        return mixed.transpose(2, 3).flatten(3)


def _project(state: Tensor, attention: Attention) -> tuple[Tensor, Tensor]:
    """Keys and values ``[adapters, length, dim]`` as the frozen layer makes them.

    From its weights, not by calling it: what hooks do there is for the states of utterances.
    """
    norm = attention.norm
    if norm is not None:
        assert isinstance(norm, nn.LayerNorm)
        state = F.layer_norm(state, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    key, value = attention.key, attention.value
    return F.linear(state, key.weight, key.bias), F.linear(state, value.weight, value.bias)
