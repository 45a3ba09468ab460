"""What every head is: a config, tensors, and whom it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from speechadapt.errors import ConfigError


class Head:
    """Tensors that read encoder states.

    A head belongs to a base, as its checkpoint has it, or to an adapter, with which it travels.

    Args:
        config: What it answers with.
        tensors: By name.

    Attributes:
        kind: What a user calls it.
    """

    kind: ClassVar[str] = ""

    def __init__(self, config: Any, tensors: Mapping[str, Tensor]):
        self.config = config
        self.tensors = dict(tensors)


def unlike(kind: str, head: Head | None, what: str) -> ConfigError:
    """The error of asking a route for what its head cannot give."""
    has = "no head" if head is None else f"a {head.kind} head"
    return ConfigError(
        f"this base and route have {has}, and {what} needs a {kind} head; load a checkpoint or an "
        "adapter that has one"
    )
