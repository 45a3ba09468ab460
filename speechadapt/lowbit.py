"""Adapters stored in 8 bits or 1 bit a weight; they are widened again when they are loaded.

Matrices become codes; vectors (biases, normalisations) stay as they are, for they are few.

- 8 bits: each row has its own scale, its largest weight over 127.
- 1 bit (Jie et al. 2023, *Revisiting the Parameter Efficiency of Adapters from the Perspective of
  Precision Redundancy*): a weight is one of two values, the tensor's mean plus or minus
  ``sqrt(2 / pi)`` standard deviations, which loses the least squares of a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from speechadapt.errors import AdapterError

BITS = (8, 1)
_CODES, _SCALE = ":codes", ":scale"
_LEVEL = math.sqrt(2 / math.pi)


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
        matrix = tensor.detach().float().cpu().flatten(1)
        codes, scale = _to_int8(matrix) if bits == 8 else _to_one_bit(matrix)
        stored[name + _CODES], stored[name + _SCALE] = codes, scale
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
        AdapterError: Codes or scales are missing, or of the wrong type or shape.
    """
    tensors = {k: t for k, t in stored.items() if not k.endswith((_CODES, _SCALE))}
    names = {key.removesuffix(_CODES).removesuffix(_SCALE) for key in set(stored) - set(tensors)}
    for name in sorted(names):
        codes, scale = stored.get(name + _CODES), stored.get(name + _SCALE)
        if codes is None or scale is None or name not in shapes:
            raise AdapterError(f"{name}: codes or scales are missing, or it is not of this adapter")
        rows, columns = shapes[name][0], math.prod(shapes[name][1:])
        width, scales = (columns, [rows]) if bits == 8 else (-(-columns // 8), [2])
        kind = torch.int8 if bits == 8 else torch.uint8
        if codes.dtype != kind or list(codes.shape) != [rows, width] or list(scale.shape) != scales:
            raise AdapterError(
                f"{name}: codes are {codes.dtype} {list(codes.shape)} with scales "
                f"{list(scale.shape)}, expected {kind} {[rows, width]} with {scales}"
            )
        matrix = _from_int8(codes, scale) if bits == 8 else _from_one_bit(codes, scale, columns)
        tensors[name] = matrix.view(shapes[name])
    return tensors


def _to_int8(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale = matrix.abs().amax(1) / 127
    codes = (matrix / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return codes.to(torch.int8), scale


def _from_int8(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.float() * scale.float()[:, None]


def _to_one_bit(matrix: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = matrix.mean(), matrix.std(correction=0)
    codes = torch.from_numpy(np.packbits((matrix >= mean).numpy(), axis=1))
    return codes, torch.stack((mean, deviation))


def _from_one_bit(codes: Tensor, scale: Tensor, columns: int) -> Tensor:
    bits = torch.from_numpy(np.unpackbits(codes.numpy(), axis=1, count=columns))
    mean, deviation = scale.float()
    return mean + deviation * _LEVEL * (2.0 * bits.float() - 1.0)
