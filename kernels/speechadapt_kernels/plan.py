"""How kernels cut their work: a table, made by measuring, instead of tuning while serving.

A row says for which bottlenecks and batches it holds; the first that fits is taken. There is one
table for each architecture that was measured, and a default. Every row must pass the gates
(``kernels/bench/gate.py``: it compiles without spilling; on a GPU: its results are right) before it
may enter. A table that could not work is refused when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor

KERNELS = (
    "bottleneck.forward",
    "bottleneck.backward",
    "bottleneck.outer",
    "fusion.score",
    "fusion.mix",
    "conformer.glu",
    "conformer.conv",
    "logmel.spectrum",
    "lowbit.forward",
)
DEFAULT = "default"
WIDEST = 256  # bottleneck of all kernels but the plain one's
_tried: dict[str, Tiles] = {}
_tried_cpu: list[CpuPlan] = []


@dataclass(frozen=True)
class Tiles:
    """How a kernel's work is cut.

    Attributes:
        frames: Of a tile.
        dim: Columns of the states (frequencies of a spectrum) that are read at once; halved where
            it does not divide them.
        warps: Of a program.
        stages: Loads in flight.
        splits: Programs that share what a tile gives, each some of its columns; where there are few
            tiles, one processor would read all weights for each. Of the bottleneck's forward alone.
    """

    frames: int
    dim: int
    warps: int
    stages: int
    splits: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} is {value!r}, expected 1 or more")
        if self.frames < 16 or self.dim < 32 or self.warps > 16:
            raise ValueError(
                f"{self}: a tile is 16 frames and 32 columns at least, 16 warps at most"
            )
        for value in (self.frames, self.dim, self.warps, self.splits):
            if value & (value - 1):
                raise ValueError(f"{self}: {value} is no power of two")

    def settings(self) -> dict[str, int]:
        """What a kernel is launched with."""
        return {
            "BLOCK_FRAMES": self.frames,
            "BLOCK_DIM": self.dim,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        kernel: One of :data:`KERNELS`.
        tiles: What to do.
        width: Widest bottleneck it is for; None = any.
        rows: Frames of the largest batch it is for, all utterances together; None = any. What
            decides is how many tiles there are for the processors of a GPU.
        dtype: Of the states it is for, ``float32``; None = any.
    """

    kernel: str
    tiles: Tiles
    width: int | None = None
    rows: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("width", "rows"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}, expected 1 or more")
        if self.tiles.splits > 1 and self.kernel != "bottleneck.forward":
            raise ValueError(f"splits is {self.tiles.splits}, and {self.kernel} cannot be split")
        if self.dtype not in (None, "float32"):
            raise ValueError(f"dtype is {self.dtype!r}, expected float32 or nothing")

    def fits(self, kernel: str, width: int, rows: int, dtype: torch.dtype) -> bool:
        """Whether it is for such a launch."""
        wide = self.width is not None and width > self.width
        large = self.rows is not None and rows > self.rows
        other = self.dtype is not None and dtype != torch.float32
        return self.kernel == kernel and not wide and not large and not other

    def hides(self, other: Row) -> bool:
        """Whether no launch is left to ``other``, behind it."""
        return (
            self.kernel == other.kernel
            and self.dtype in (None, other.dtype)
            and (self.width is None or (other.width is not None and other.width <= self.width))
            and (self.rows is None or (other.rows is not None and other.rows <= self.rows))
        )


def read_plan(name: str) -> tuple[Row, ...]:
    """The table ``plans/<name>.json``.

    Raises:
        ValueError: It could not work; the message names the row.
    """
    text = resources.files(__package__).joinpath("plans", f"{name}.json").read_text("utf-8")
    return parse_plan(json.loads(text), name)


def parse_plan(rows: Any, name: str) -> tuple[Row, ...]:
    """A table from what its file holds.

    Raises:
        ValueError: As :func:`read_plan`.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"plan {name}: expected a list of rows")
    plan: list[Row] = []
    for number, row in enumerate(rows, 1):
        try:
            made = Row(**row | {"tiles": Tiles(**row["tiles"])})
            if made.kernel not in KERNELS:
                raise ValueError(f"kernel is {made.kernel!r}, expected one of {', '.join(KERNELS)}")
            if any(before.hides(made) for before in plan):
                raise ValueError("a row before it takes all that is for it")
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"plan {name}, row {number}: {error}") from None
        plan.append(made)
    for kernel in KERNELS:
        if not any(row.fits(kernel, 1 << 30, 1 << 30, torch.bfloat16) for row in plan):
            raise ValueError(
                f"plan {name}: no row of {kernel} is for everything; add one at the end"
            )
    return tuple(plan)


def tiles_for(
    kernel: str,
    device: torch.device,
    width: int,
    rows: int,
    dims: tuple[int, ...],
    dtype: torch.dtype,
) -> Tiles:
    """How a launch is cut.

    Args:
        kernel: One of :data:`KERNELS`.
        device: Where it runs.
        width: Of the bottleneck.
        rows: Frames of the batch.
        dims: Widths of what is read and, last, written; all multiples of 64.
        dtype: Of the states.
    """
    plan = _plan(_architecture(device))
    tiles = _tried.get(kernel) or next(
        row.tiles for row in plan if row.fits(kernel, width, rows, dtype)
    )
    dim, splits = tiles.dim, tiles.splits
    while dims[-1] % (32 * splits):  # what is split is what is written
        splits //= 2
    while any(each % dim for each in (*dims, dims[-1] // splits)):
        dim //= 2
    return replace(tiles, dim=dim, splits=splits)


@contextmanager
def trying(kernel: str, tiles: Tiles) -> Iterator[None]:
    """Launch a kernel so whatever the table says: to find out whether it would be better."""
    _tried[kernel] = tiles
    try:
        yield
    finally:
        del _tried[kernel]


@dataclass(frozen=True)
class CpuPlan:
    """The table ``plans/cpu.json``: how adapters run on a CPU, by what its caches hold.

    Attributes:
        apart_from_bytes: Of a batch's states, from which several adapters are better run one after
            the other than in batched products.
        block_bytes: Of the states that are best taken at once.
    """

    apart_from_bytes: int
    block_bytes: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} is {value!r}, expected bytes")


def cpu_plan() -> CpuPlan:
    """The table for CPUs.

    Raises:
        ValueError: It could not work.
    """
    return _tried_cpu[-1] if _tried_cpu else _measured_cpu()


@contextmanager
def trying_cpu(plan: CpuPlan) -> Iterator[None]:
    """Run so on a CPU whatever the table says: to find out whether it would be better."""
    _tried_cpu.append(plan)
    try:
        yield
    finally:
        _tried_cpu.pop()


@cache
def _measured_cpu() -> CpuPlan:
    return parse_cpu_plan(
        resources.files(__package__).joinpath("plans", "cpu.json").read_text("utf-8")
    )


def parse_cpu_plan(text: str) -> CpuPlan:
    """The table for CPUs from what its file holds.

    Raises:
        ValueError: As :func:`cpu_plan`.
    """
    try:
        return CpuPlan(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"plan cpu: {error}") from None


def runs_apart(rows: Tensor) -> bool:
    """Whether adapters of a batch are better run one after the other than in batched products.

    Args:
        rows: Laid out by adapter, ``[adapters, ...]``. On a CPU a large batch leaves the caches
            between two operators; one adapter's share of it does not.
    """
    return rows.device.type == "cpu" and rows.nbytes >= cpu_plan().apart_from_bytes


def rows_at_once(rows: Tensor) -> int:
    """How many of ``rows`` (``[rows, dim]``) are best taken at once: as many as the caches hold."""
    if rows.device.type != "cpu":
        return max(1, len(rows))
    return max(1, cpu_plan().block_bytes // max(1, rows.shape[-1] * rows.itemsize))


def measured(device: torch.device) -> bool:
    """Whether the kernels were checked and measured on such a GPU: it has a table of its own."""
    return plan_name(device) != DEFAULT


def plan_name(device: torch.device) -> str:
    """Of the table that holds there."""
    return _plan_file(_architecture(device))


@cache
def _architecture(device: torch.device) -> str:
    if device.type != "cuda":
        return DEFAULT
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}"


def _plan_file(architecture: str) -> str:
    file = resources.files(__package__).joinpath("plans", f"{architecture}.json")
    return architecture if file.is_file() else DEFAULT


@cache
def _plan(architecture: str) -> tuple[Row, ...]:
    return read_plan(_plan_file(architecture))
