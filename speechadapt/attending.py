"""What adapters do inside an attention: it is told by the hook before it, and asks here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechadapt.adapters.family import AttentionBatch
from speechadapt.backbones.base import Site
from speechadapt.call import Call
from speechadapt.steps import steps_at


def attend(
    call: Call,
    site: Site,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    output: Tensor,
) -> Tensor:
    """What an attention gives after the adapters of this batch.

    Args:
        call: The batch.
        site: Its keys and values.
        query: ``[batch, heads, queries, head dim]``.
        key: ``[batch, heads, keys, head dim]``.
        mask: Boolean or additive, ``[batch or 1, 1, queries or 1, keys]``; None = see ``causal``.
        causal: Whether a query sees no later key, where there is no mask.
        scale: Factor of the scores.
        output: What it gave without adapters, ``[batch, queries, heads, head dim]``.
    """
    assert site.attention is not None
    source, target = query.transpose(1, 2).flatten(2), output.flatten(2)
    log_sum = None
    for step in steps_at(call, site, len(query), query.device):
        family, config = step.adapter.family, step.adapter.config
        shares = family.shares_softmax(config)
        if shares and log_sum is None:
            log_sum = _log_sum(query * scale, key, mask, causal)
        batch = AttentionBatch(
            source=step.rows.gather(source),
            target=step.rows.gather(target),
            train=step.adapter.training,
            lengths=None,
            repeated=step.rows.repeated,
            store=step.store,
            penalties=call.penalties,
            attention=site.attention,
            scale=scale,
            log_sum=step.rows.gather(log_sum) if shares and log_sum is not None else None,
        )
        target = step.rows.scatter(target, family.apply(config, step.weights, batch))
        if log_sum is not None and batch.log_sum is not None:
            log_sum = step.rows.scatter(log_sum, batch.log_sum)
    return target.unflatten(2, output.shape[2:])


def _log_sum(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Logarithm of the sum over the exponentials of scores, ``[batch, heads, queries, 1]``."""
    scores = query @ key.mT
    if mask is None and causal and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.logsumexp(-1, keepdim=True)
