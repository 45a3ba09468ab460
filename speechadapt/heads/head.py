"""What every head is: a config, tensors, and whom it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from speechadapt.errors import ConfigError


class Head(ABC):
    """Tensors that read encoder states.

    A head belongs to a base, as its checkpoint has it, or to an adapter, with which it travels.

    Args:
        config: What it answers with.
        tensors: By name.

    Attributes:
        kind: What users and files call it.
    """

    kind: ClassVar[str] = ""

    def __init__(self, config: Any, tensors: Mapping[str, Tensor]):
        self.config = config
        self.tensors = {
            key: nn.Parameter(tensor.detach(), requires_grad=False)
            for key, tensor in tensors.items()
        }

    @classmethod
    @abstractmethod
    def fresh(cls, config: Any, dim: int, generator: torch.Generator) -> Head:
        """A head for states of width ``dim`` that knows nothing yet."""

    def to_dict(self) -> dict[str, Any]:
        """Kind and config as JSON has them."""
        return {"kind": self.kind, **asdict(self.config)}


def unlike(kind: str, head: Head | None, what: str) -> ConfigError:
    """The error of asking a route for what its head cannot give."""
    has = "no head" if head is None else f"a {head.kind} head"
    return ConfigError(
        f"this base and route have {has}, and {what} needs a {kind} head; load a checkpoint or an "
        "adapter that has one"
    )


def linear(outputs: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A last layer as transformers starts it."""
    return {
        "proj.weight": 0.02 * torch.randn(outputs, dim, generator=generator),
        "proj.bias": torch.zeros(outputs),
    }
