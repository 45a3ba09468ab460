"""Cases of eight adapters that read the same states: by attention, by a router, and trained."""

from __future__ import annotations

import torch
from floors import Work, cost
from peers import apply_routed
from problems import SCALE, Problem, Shape, adapters, each, gradients, normal, states
from torch import Tensor

from speechadapt_kernels.fusion.folded import fold_fusion, fold_shares
from speechadapt_kernels.fusion.naive import naive_fusion
from speechadapt_kernels.fusion.operator import fused_fusion
from speechadapt_kernels.fusion.reassociated import reassociated_fusion
from speechadapt_kernels.fusion.weights import FusionWeights

FUSED = 8  # adapters


def attention(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """AdapterFusion."""
    weights, some = _weights(shape, device), shape.places
    folded, plain = fold_fusion(weights, dtype, SCALE), each(weights, lambda t: t.to(dtype))

    def wanted(x: Tensor) -> tuple[Tensor]:
        part = x[some].double()
        return (naive_fusion(part, part, each(weights, Tensor.double), "gelu", SCALE)[0],)

    return Problem(
        {
            "fused": lambda x: fused_fusion(x, x, folded, "gelu"),
            "eager": lambda x: naive_fusion(x, x, plain, "gelu", SCALE),
        },
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        lambda made: (made[0][some],),
        _work(shape, dtype, 3),
        dtype,
    )


def routed(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Shares that a router gives to each frame."""
    weights, some = adapters(shape, FUSED, device), shape.places
    folded, plain = fold_shares(weights, dtype, SCALE), each(weights, lambda t: t.to(dtype))

    def make(seed: int) -> tuple[Tensor, Tensor]:
        scores = normal(shape.batch, shape.frames, FUSED, device=device, seed=seed + 1)
        return states(shape, device, dtype, seed), scores.softmax(-1)

    def wanted(x: Tensor, shares: Tensor) -> tuple[Tensor]:
        exact = each(weights, Tensor.double)
        return (apply_routed(x[some].double(), exact, shares[some].double(), SCALE),)

    return Problem(
        {
            "fused": lambda x, shares: fused_fusion(x, x, folded, "gelu", shares)[0],
            "eager": lambda x, shares: apply_routed(x, plain, shares.to(dtype), SCALE),
        },
        make,
        wanted,
        lambda made: (made[some],),
        _work(shape, dtype, 2),
        dtype,
    )


def trained(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Forward and backward of AdapterFusion: the same sum in another order against the definition.

    In float32 whatever the states are: it is torch's operators that run, not ours, and in half
    precision both are as far from the definition as those are.
    """
    del dtype
    weights = each(_weights(shape, device), lambda t: t.requires_grad_(True))
    some, single = shape.places, torch.float32

    def wanted(x: Tensor, pull: Tensor) -> tuple[Tensor, ...]:
        exact = each(weights, lambda t: t.detach().double().requires_grad_(True))
        made = gradients(lambda x: naive_fusion(x, x, exact, "gelu", SCALE)[0], exact)
        below, *rest = made(x.detach().double(), pull.double())
        return below[some], *rest

    rows, dim, inside = shape.rows, shape.dim, FUSED * shape.width
    flops = 3 * (6 * rows * inside * dim + 6 * rows * dim * dim)
    return Problem(
        {
            "fused": gradients(
                lambda x: reassociated_fusion(x, x, weights, "gelu", SCALE)[0], weights
            ),
            "eager": gradients(lambda x: naive_fusion(x, x, weights, "gelu", SCALE)[0], weights),
        },
        lambda seed: (
            states(shape, device, single, seed),
            states(shape, device, single, seed + 1),
        ),
        wanted,
        lambda made: (made[0][some], *made[1:]),
        Work(7 * rows * dim * single.itemsize, flops * cost(single)),
        single,
        trains=True,
    )


def _work(shape: Shape, dtype: torch.dtype, matrices: int) -> Work:
    """With so many matrices for each adapter."""
    inside = FUSED * shape.width
    moved = 2 * shape.rows * (shape.dim + inside) + matrices * inside * shape.dim
    return Work(
        moved * dtype.itemsize, 2 * matrices * shape.rows * inside * shape.dim * cost(dtype)
    )


def _weights(shape: Shape, device: torch.device) -> FusionWeights:
    def square(seed: int) -> Tensor:
        return normal(shape.dim, shape.dim, device=device, seed=seed) / shape.dim**0.5

    return FusionWeights(
        adapters=adapters(shape, FUSED, device),
        query=square(11) / shape.dim**0.25,
        query_bias=0.1 * normal(shape.dim, device=device, seed=12),
        key=square(13) / shape.dim**0.25,
        value=square(14),
    )
