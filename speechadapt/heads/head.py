"""What every head is: a config, tensors, and whom it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from speechadapt.errors import ConfigError

if TYPE_CHECKING:
    from speechadapt.backbones.base import Encoded

LAYERS = "layers.weight"
"""The tensor that weighs the layers, where a head reads them all."""


class Head(ABC):
    """Tensors that read encoder states.

    A head belongs to a base, as its checkpoint has it, or to an adapter, with which it travels.

    Args:
        config: What it answers with.
        tensors: By name. Parameters stay those they are: what a checkpoint's head reads with is
            the model's own layer, also when all of the model is trained.

    Attributes:
        kind: What users and files call it.
    """

    kind: ClassVar[str] = ""

    def __init__(self, config: Any, tensors: Mapping[str, Tensor]):
        self.config = config
        self.tensors = {
            key: tensor
            if isinstance(tensor, nn.Parameter)
            else nn.Parameter(tensor.detach(), requires_grad=False)
            for key, tensor in tensors.items()
        }

    @classmethod
    @abstractmethod
    def fresh(cls, config: Any, dim: int, generator: torch.Generator) -> Head:
        """A head for states of width ``dim`` that knows nothing yet."""

    @property
    def reads_layers(self) -> bool:
        """Whether it needs the states of all layers."""
        return LAYERS in self.tensors

    def read(self, encoded: Encoded) -> Tensor:
        """The states it reads, ``[batch, positions, dim]``.

        Those of the last layer, or a weighted sum of all layers' (Yang et al. 2021, *SUPERB*,
        section 3): the weights are a softmax, at first all the same.
        """
        if not self.reads_layers:
            return encoded.states
        assert encoded.layers is not None  # Call.reads_layers saw to it
        shares = self.tensors[LAYERS].softmax(0)
        mixed = shares[0] * encoded.layers[0]
        for share, states in zip(shares[1:], encoded.layers[1:], strict=True):
            mixed = torch.addcmul(mixed, share, states)
        return mixed

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


def linear(outputs: int, dim: int, layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A last layer as transformers starts it, and where it is to read ``layers`` layers, their
    weights."""
    tensors = {
        "proj.weight": 0.02 * torch.randn(outputs, dim, generator=generator),
        "proj.bias": torch.zeros(outputs),
    }
    return {**tensors, LAYERS: torch.zeros(layers)} if layers else tensors
