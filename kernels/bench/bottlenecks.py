"""Cases of the bottleneck adapter: one, mixed, packed, trained, and in few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from floors import Work, cost
from peers import apply, apply_gathered, apply_routed
from problems import MIXED, SCALE, Problem, Shape, adapters, each, gradients, mixed, states
from torch import Tensor

from speechadapt_kernels.bottleneck.folded import fold, fold_average
from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.lowbit.codes import from_codes, to_codes
from speechadapt_kernels.lowbit.folded import fold_lowbit
from speechadapt_kernels.lowbit.naive import naive_lowbit
from speechadapt_kernels.lowbit.operator import fused_lowbit
from speechadapt_kernels.plan import tiles_for

AVERAGED = 8  # adapters


def one(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """One adapter for the whole batch."""
    return _forward(shape, device, dtype, 1)


def many(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Up to 16 adapters in one batch; plain PyTorch gathers the weights of each utterance."""
    return _forward(shape, device, dtype, min(MIXED, shape.batch))


def _forward(shape: Shape, device: torch.device, dtype: torch.dtype, count: int) -> Problem:
    weights, slots = adapters(shape, count, device), mixed(shape, count, device)
    plain, folded = each(weights, lambda t: t.to(dtype)), fold(weights, dtype)
    places, some = slots.long(), shape.places

    def eager(x: Tensor) -> Tensor:
        return apply(x, plain, 0, SCALE) if count == 1 else apply_gathered(x, plain, places, SCALE)

    def wanted(x: Tensor) -> tuple[Tensor]:
        exact = each(weights, Tensor.double)
        return (naive_bottleneck(x[some].double(), exact, slots[some], "gelu", SCALE),)

    return Problem(
        {"fused": lambda x: fused_bottleneck(x, folded, slots, "gelu", SCALE), "eager": eager},
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        lambda made: (made[some],),
        _work(shape, device, dtype, count),
        dtype,
    )


def packed(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """A mixed batch of unequal lengths, one behind the other; plain PyTorch pads it first."""
    count = min(MIXED, shape.batch)
    weights, slots = adapters(shape, count, device), mixed(shape, count, device)
    plain, folded = each(weights, lambda t: t.to(dtype)), fold(weights, dtype)
    lengths = [max(1, shape.frames * (4 - place % 4) // 4) for place in range(shape.batch)]
    bounds = [0, *accumulate(lengths)]
    offsets = torch.tensor(bounds, device=device, dtype=torch.int32)
    frame = torch.arange(shape.frames, device=device)
    inside = frame < torch.tensor(lengths, device=device)[:, None]
    padded_from = (offsets[:-1, None] + frame).clamp(max=bounds[-1] - 1).long()
    packed_from = inside.flatten().nonzero().squeeze(1)
    places, some = slots.long(), shape.places
    spans = list(pairwise(bounds))

    def eager(x: Tensor) -> Tensor:
        return apply_gathered(x[padded_from], plain, places, SCALE).flatten(0, 1)[packed_from]

    def cut(x: Tensor) -> Tensor:
        return torch.cat([x[slice(*spans[place])] for place in some])

    def wanted(x: Tensor) -> tuple[Tensor]:
        exact = each(weights, Tensor.double)
        ends = torch.tensor([0, *accumulate(lengths[place] for place in some)])
        part = cut(x).double()
        return (naive_bottleneck(part, exact, slots[some], "gelu", SCALE, offsets=ends),)

    def fused(x: Tensor) -> Tensor:
        return fused_bottleneck(
            x, folded, slots, "gelu", SCALE, offsets=offsets, longest=shape.frames
        )

    return Problem(
        {"fused": fused, "eager": eager},
        lambda seed: (states(shape, device, dtype, seed).flatten(0, 1)[: bounds[-1]].clone(),),
        wanted,
        lambda made: (cut(made),),
        _work(shape, device, dtype, count, lengths),
        dtype,
    )


def average(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """The mean of eight adapters as one wide adapter; plain PyTorch has every output in memory."""
    weights, slots = adapters(shape, AVERAGED, device), mixed(shape, 1, device)
    shares = torch.full((AVERAGED,), 1 / AVERAGED, device=device)
    plain, folded = each(weights, lambda t: t.to(dtype)), fold_average(weights, shares, dtype)
    some, known = shape.places, shares.to(dtype)

    def wanted(x: Tensor) -> tuple[Tensor]:
        exact = each(weights, Tensor.double)
        return (apply_routed(x[some].double(), exact, shares.double(), SCALE),)

    return Problem(
        {
            "fused": lambda x: fused_bottleneck(x, folded, slots, "gelu", SCALE),
            "eager": lambda x: apply_routed(x, plain, known, SCALE),
        },
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        lambda made: (made[some],),
        _work(replace(shape, bottleneck=folded.rank), device, dtype, 1),
        dtype,
    )


def trained(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """One adapter's forward and backward: gradients of the states and of its weights."""
    weights = each(adapters(shape, 1, device), lambda t: t.requires_grad_(True))
    slots, some = mixed(shape, 1, device), shape.places

    def wanted(x: Tensor, pull: Tensor) -> tuple[Tensor, ...]:
        # Every utterance: each adds to the gradients of the weights.
        exact = each(weights, lambda t: t.detach().double().requires_grad_(True))
        made = gradients(lambda x: naive_bottleneck(x, exact, slots, "gelu", SCALE), exact)
        below, *rest = made(x.detach().double(), pull.double())
        return below[some], *rest

    once = _work(shape, device, dtype, 1)
    moved = 7 * shape.rows * shape.dim * dtype.itemsize  # two forward, five backward
    return Problem(
        {
            "fused": gradients(
                lambda x: fused_bottleneck(x, fold(weights, dtype), slots, "gelu", SCALE), weights
            ),
            "eager": gradients(
                lambda x: apply(x, each(weights, lambda t: t.to(dtype)), 0, SCALE), weights
            ),
        },
        lambda seed: (
            states(shape, device, dtype, seed),
            states(shape, device, dtype, seed + 1),
        ),
        wanted,
        lambda made: (made[0][some], *made[1:]),
        Work(moved, once.flops * 7 // 2),
        dtype,
        trains=True,
    )


def in_8_bits(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Matrices in 8 bits; plain PyTorch widens its codes at each call as well, or has floats."""
    return _lowbit(shape, device, dtype, 8)


def in_1_bit(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """The same in 1 bit."""
    return _lowbit(shape, device, dtype, 1)


def _lowbit(shape: Shape, device: torch.device, dtype: torch.dtype, bits: int) -> Problem:
    weights, slots = adapters(shape, 1, device), mixed(shape, 1, device)
    plain, folded = each(weights, lambda t: t.to(dtype)), fold_lowbit(weights, bits)
    some = shape.places
    down, up = to_codes(weights.down[0], bits), to_codes(weights.up[0], bits)

    def eager(x: Tensor) -> Tensor:
        matrices = (from_codes(*coded, bits).to(dtype)[None] for coded in (down, up))
        return apply(
            x, replace(plain, **dict(zip(("down", "up"), matrices, strict=True))), 0, SCALE
        )

    def wanted(x: Tensor) -> tuple[Tensor]:
        exact = each(weights, Tensor.double)
        return (naive_lowbit(x[some].double(), exact, bits, slots[some], "gelu", SCALE),)

    matrix = shape.dim * shape.width
    moved = 2 * shape.rows * shape.dim * dtype.itemsize + 2 * matrix * bits // 8
    return Problem(
        {
            "fused": lambda x: fused_lowbit(x, folded, slots, "gelu", SCALE),
            "eager": eager,
            "floats": lambda x: apply(x, plain, 0, SCALE),
        },
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        lambda made: (made[some],),
        Work(moved, 4 * shape.rows * matrix * cost(dtype)),
        dtype,
    )


def _work(
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    count: int,
    lengths: Sequence[int] | None = None,
) -> Work:
    """``lengths``: frames of each utterance; None = as the shape says."""
    lengths = [shape.frames] * shape.batch if lengths is None else lengths
    rows, size, matrix = sum(lengths), dtype.itemsize, shape.dim * shape.width
    tiles = tiles_for("bottleneck.forward", device, shape.width, rows, (shape.dim,), dtype)
    return Work(
        (2 * rows * shape.dim + 2 * count * matrix) * size,
        4 * rows * matrix * cost(dtype),
        tiles.splits * sum(-(-length // tiles.frames) for length in lengths),
        (1 + 1 / tiles.splits) * matrix * size
        + (1 + 2 / tiles.splits) * tiles.frames * shape.dim * size,
    )
