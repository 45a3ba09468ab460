"""What every frozen backbone offers: its sites."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Site:
    """A place where an adapter may attach.

    Attributes:
        name: Canonical name, e.g. ``encoder.3.ffn.out``; the key of the adapter's tensors on disk.
        leaf: The module whose output the adapter adds to.
        norm: The normalisation that opens the same sub-layer: its input is the residual stream, its
            output is what the sub-layer reads.
        dim: Width of the leaf's output.
        reads_residual: Whether a sequential adapter here reads leaf output plus residual (the state
            after the sub-layer) instead of the leaf output alone.
    """

    name: str
    leaf: nn.Module
    norm: nn.Module
    dim: int
    reads_residual: bool = False

    @property
    def stack(self) -> str:
        """``encoder`` or ``decoder``."""
        return self.name.split(".", 1)[0]

    @property
    def layer(self) -> int:
        """Index of the layer inside its stack."""
        return int(self.name.split(".")[1])

    @property
    def point(self) -> str:
        """The place inside the layer, e.g. ``ffn.out``."""
        return self.name.split(".", 2)[2]
