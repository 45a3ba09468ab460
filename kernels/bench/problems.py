"""What a problem is: systems that do the same, their inputs, and what the definition gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from floors import Work
from torch import Tensor

from speechadapt_kernels.bottleneck.stacked import BottleneckWeights

System = Callable[..., Any]
# Width of the states and of the bottleneck, and positions of what they hear.
MODELS = {
    "whisper-base": (512, 32, (50, 250, 1500)),
    "whisper-small, wav2vec2-base": (768, 64, (50, 250, 1500)),
    "whisper-large-v3": (1280, 64, (50, 250, 1500)),
    "AST": (768, 64, (1214,)),
}
MIXED = 16  # adapters of a mixed batch, fewer where the batch is smaller
SCALE = 0.5
FEW = 4096  # frames of a batch that are all compared with the definition


@dataclass(frozen=True)
class Shape:
    """Of one case.

    Attributes:
        model: Key of :data:`MODELS`.
        batch: Utterances.
        frames: Positions of each.
        bottleneck: None = as wide as the model's.
    """

    model: str
    batch: int
    frames: int
    bottleneck: int | None = None

    @property
    def dim(self) -> int:
        """Width of the states."""
        return MODELS[self.model][0]

    @property
    def width(self) -> int:
        """Width of the bottleneck."""
        return self.bottleneck or MODELS[self.model][1]

    @property
    def rows(self) -> int:
        """Frames of all utterances."""
        return self.batch * self.frames

    @property
    def places(self) -> list[int]:
        """Utterances that are compared with the definition: all of a small batch, some of others.

        The definition has all in memory, in float64.
        """
        if self.rows <= FEW:
            return list(range(self.batch))
        return sorted({0, self.batch // 2, self.batch - 1})


@dataclass
class Problem:
    """One case, on a device.

    Attributes:
        systems: By name, ours first: each takes the tensors of ``make`` and gives its result.
        make: New random tensors, from a seed.
        wanted: What the definition gives for such tensors, in float64: each tensor of the result,
            of the utterances ``places`` where it is one for each.
        found: The same of what a system gave.
        work: What has to be done.
        dtype: What ours computes in.
        trains: It has a backward in it, which PyTorch's compiler does not take whole.
        peers: Those of the systems that are not ours and need not stand a CUDA graph.
    """

    systems: dict[str, System]
    make: Callable[[int], tuple[Tensor, ...]]
    wanted: Callable[..., tuple[Tensor, ...]]
    found: Callable[[Any], tuple[Tensor, ...]]
    work: Work
    dtype: torch.dtype
    trains: bool = False
    peers: tuple[str, ...] = ()


def gradients(call: Callable[[Tensor], Tensor], weights: Any) -> System:
    """What takes states and a gradient from above, and gives gradients of them and all weights."""
    leaves = tensors_of(weights)

    def run(x: Tensor, pull: Tensor) -> tuple[Tensor, ...]:
        x.requires_grad_(True)
        return torch.autograd.grad(call(x), [x, *leaves], pull)

    return run


def each(weights: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same dataclass with ``change`` applied to its tensors, and to those of dataclasses."""
    made = {}
    for name in (f.name for f in fields(weights)):
        value = getattr(weights, name)
        if isinstance(value, Tensor):
            made[name] = change(value)
        elif is_dataclass(value):
            made[name] = each(value, change)
    return replace(weights, **made)


def tensors_of(weights: Any) -> list[Tensor]:
    """All that :func:`each` changes."""
    found: list[Tensor] = []
    each(weights, lambda t: (found.append(t), t)[1])
    return found


def adapters(shape: Shape, count: int, device: torch.device) -> BottleneckWeights:
    """Bottlenecks with random weights, in float32."""

    def made(*sizes: int, seed: int) -> Tensor:
        return normal(count, *sizes, device=device, seed=seed)

    dim, width = shape.dim, shape.width
    return BottleneckWeights(
        down=made(width, dim, seed=1) / dim**0.5,
        down_bias=0.1 * made(width, seed=2),
        up=made(dim, width, seed=3) / width**0.5,
        up_bias=0.1 * made(dim, seed=4),
        norm_weight=1 + 0.1 * made(dim, seed=5),
        norm_bias=0.1 * made(dim, seed=6),
    )


def states(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    """Random hidden states, ``[batch, frames, dim]``."""
    return normal(shape.batch, shape.frames, shape.dim, device=device, seed=seed).to(dtype)


def normal(*sizes: int, device: torch.device, seed: int) -> Tensor:
    """Normal numbers, the same for a seed."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*sizes, generator=generator, device=device)


def mixed(shape: Shape, count: int, device: torch.device) -> Tensor:
    """Slots of a batch with ``count`` adapters, in turn."""
    return torch.arange(shape.batch, device=device, dtype=torch.int32) % count
