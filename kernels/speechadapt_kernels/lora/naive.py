"""The definition, one utterance and one slice after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechadapt_kernels.layout import spans


def naive_lora(
    source: Tensor,
    base: Tensor,
    down: Sequence[Tensor],
    up: Sequence[Tensor],
    slots: Tensor,
    scale: float = 1.0,
    offsets: Tensor | None = None,
) -> Tensor:
    """``base + scale * up(down(source))`` for each slice, each utterance with its own adapter.

    Args: as :func:`speechadapt_kernels.lora.operator.fold_lora` and ``fused_lora``.
    """
    rows, parts = source.flatten(0, -2), []
    for _, slot, span in spans(source, slots, offsets):
        mine = base.flatten(0, -2)[span]
        if slot >= 0:
            each = [rows[span] @ a[slot].mT @ b[slot].mT for a, b in zip(down, up, strict=True)]
            mine = mine + scale * torch.cat(each, -1)
        parts.append(mine)
    return torch.cat(parts).view(base.shape)
