"""Products with a matrix for all rows, or with one for each batch of rows, and sums of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt_kernels.dispatch import transformed


def product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ matrix + bias``.

    Args:
        x: ``[..., rows, in]``; ``[batch, rows, in]`` where each has a matrix of its own.
        matrix: ``[in, out]`` or ``[batch, in, out]``.
        bias: ``[out]`` or ``[batch, out]``.
    """
    if matrix.dim() == 2:
        return F.linear(x, matrix.mT, bias)
    return x @ matrix if bias is None else torch.baddbmm(bias[:, None], x, matrix)


def add_product(
    base: Tensor,
    x: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    scale: float,
    out: Tensor | None = None,
) -> Tensor:
    """``base + scale * (x @ matrix + bias)``, summed where it is written: what is as wide as the
    result is touched once less.

    Args:
        base: ``[rows, out]`` or ``[batch, rows, out]``.
        x: ``[rows, in]`` or ``[batch, rows, in]``.
        matrix: As of :func:`product`.
        bias: As of :func:`product`.
        scale: Factor of the product.
        out: Where to write it; None = anew.
    """
    if not base.dtype == x.dtype == matrix.dtype or transformed():
        # Also under autocast, which casts what a linear layer reads, but no sum in place.
        made = torch.add(base, product(x, matrix, bias), alpha=scale)
        return made.to(base.dtype) if out is None else out.copy_(made)
    several = matrix.dim() == 3
    if bias is None:
        added = torch.baddbmm if several else torch.addmm
        return added(base, x, matrix, alpha=scale, out=out)
    made = torch.add(base, bias[:, None] if several else bias, alpha=scale, out=out)
    return made.baddbmm_(x, matrix, alpha=scale) if several else made.addmm_(x, matrix, alpha=scale)
