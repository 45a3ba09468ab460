"""Activations of adapters, and their derivatives where an operator has its own backward."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Each is 0 at 0, so that a narrow adapter padded with zeros to a wider one stays what it was.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def activate(name: str, x: Tensor) -> Tensor:
    """The activation ``name``; ``identity`` = none."""
    return x if name == "identity" else ACTIVATIONS[name](x)


def slope(name: str, x: Tensor) -> Tensor:
    """Derivative of the activation ``name`` at ``x``."""
    if name == "identity":
        return torch.ones_like(x)
    if name == "relu":
        return (x > 0).to(x.dtype)
    if name == "silu":
        gate = torch.sigmoid(x)
        return gate * (1 + x * (1 - gate))
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(x) + x * density
