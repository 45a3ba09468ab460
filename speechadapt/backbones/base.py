"""What every frozen backbone offers: its sites."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Site:
    """A place where an adapter may attach.

    Attributes:
        name: Canonical name, e.g. ``encoder.3.ffn.out``; the key of the adapter's tensors on disk.
        leaf: The module whose output (or input) the adapter changes.
        dim: Width of the leaf's output.
        input_dim: Width of the leaf's input.
        entry: The module that opens the sub-layer which the leaf ends, None where the leaf ends
            none. Its input is the residual stream.
        pre_norm: Whether the entry is a normalisation, whose output the sub-layer then reads, or
            the sub-layer's first projection, which reads the residual stream itself.
        reads_residual: Whether a sequential adapter here reads leaf output plus residual (the state
            after the sub-layer) instead of the leaf output alone.
    """

    name: str
    leaf: nn.Module
    dim: int
    input_dim: int
    entry: nn.Module | None = None
    pre_norm: bool = True
    reads_residual: bool = False

    @property
    def stack(self) -> str:
        """``encoder`` or ``decoder``."""
        return self.name.split(".", 1)[0]

    @property
    def layer(self) -> int | None:
        """Index of the layer inside its stack; None for a place outside the layers."""
        index = self.name.split(".")[1]
        return int(index) if index.isdecimal() else None

    @property
    def point(self) -> str:
        """The place inside the layer, e.g. ``ffn.out``, or outside the layers, e.g. ``embed``."""
        return self.name.split(".", 1 if self.layer is None else 2)[-1]


def linear_at(module: nn.Module, path: str) -> nn.Linear:
    """The linear layer at ``path`` inside ``module``.

    Raises:
        TypeError: Something else is there (a release of transformers that the tables do not know).
    """
    leaf = module.get_submodule(path)
    if not isinstance(leaf, nn.Linear):
        raise TypeError(f"{path} is a {type(leaf).__name__}, expected a Linear")
    return leaf
