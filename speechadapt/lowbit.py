"""Adapters in 8 bits or 1 bit a weight: stored so, and trained to be.

Matrices become codes; vectors (biases, normalisations) stay as they are, for they are few. Codes
are widened again when they are loaded. What an adapter computes with while it is trained to be
stored so (:func:`rounded`) is, to the last bit, what loading gives.

How they become codes is :mod:`speechadapt_kernels.lowbit.codes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechadapt.errors import AdapterError
from speechadapt_kernels.lowbit.codes import BITS, from_codes, scale_count, to_codes

__all__ = ["BITS", "pack", "rounded", "unpack"]

_CODES, _SCALE = ":codes", ":scale"


def pack(tensors: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """What is stored for ``tensors``: of a matrix ``name``, ``name:codes`` and ``name:scale``.

    Args:
        tensors: Floats of any shape; those with two or more axes are coded.
        bits: 8 or 1.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() < 2:
            stored[name] = tensor
            continue
        codes, scale = to_codes(tensor.flatten(1), bits)
        if bits == 1:
            codes = torch.from_numpy(np.packbits(codes.cpu().numpy(), axis=1))
        stored[name + _CODES], stored[name + _SCALE] = codes.cpu(), scale.cpu()
    return stored


def unpack(
    stored: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], bits: int
) -> dict[str, Tensor]:
    """The inverse of :func:`pack`, as float32.

    Args:
        stored: What was read.
        shapes: What each tensor should have; others than those here are passed on as they are.
        bits: 8 or 1.

    Raises:
        AdapterError: Codes or scales are missing, of the wrong type or shape, or stand for numbers
            that float32 does not hold.
    """
    tensors = {k: t for k, t in stored.items() if not k.endswith((_CODES, _SCALE))}
    names = {key.removesuffix(_CODES).removesuffix(_SCALE) for key in set(stored) - set(tensors)}
    for name in sorted(names):
        codes, scale = stored.get(name + _CODES), stored.get(name + _SCALE)
        if codes is None or scale is None or name not in shapes:
            raise AdapterError(f"{name}: codes or scales are missing, or it is not of this adapter")
        rows, columns = shapes[name][0], math.prod(shapes[name][1:])
        width = columns if bits == 8 else -(-columns // 8)
        scales = [scale_count((rows, columns), bits)]
        kind = torch.int8 if bits == 8 else torch.uint8
        if codes.dtype != kind or list(codes.shape) != [rows, width] or list(scale.shape) != scales:
            raise AdapterError(
                f"{name}: codes are {codes.dtype} {list(codes.shape)} with scales "
                f"{list(scale.shape)}, expected {kind} {[rows, width]} with {scales}"
            )
        if bits == 1:
            codes = torch.from_numpy(np.unpackbits(codes.numpy(), axis=1, count=columns))
        tensors[name] = from_codes(codes, scale.float(), bits).view(shapes[name])
        if not torch.isfinite(tensors[name]).all():
            raise AdapterError(f"{name}: its scales are too large for float32")
    return tensors


def rounded(tensor: Tensor, bits: int) -> Tensor:
    """What :func:`pack` and :func:`unpack` make of a tensor; gradients pass as if it were the same.

    A tensor of zeros stays zero, so an adapter that starts as the identity does so in few bits too.

    Args:
        tensor: Floats of any shape; returned as it is where it has less than two axes.
        bits: 8 or 1.
    """
    if tensor.dim() < 2:
        return tensor
    made: Tensor = _Rounded.apply(tensor, bits)
    return made


class _Rounded(torch.autograd.Function):
    """The straight-through estimator (Bengio et al. 2013, section 3)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, bits: int) -> Tensor:
        made = from_codes(*to_codes(tensor.flatten(1), bits), bits)
        return made.view(tensor.shape).to(tensor.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
