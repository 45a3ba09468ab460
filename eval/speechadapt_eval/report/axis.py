"""Axes of charts: where a value lies between two ends, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis, linear or logarithmic.

    Attributes:
        ticks: Round values, ascending; the axis begins at the first and ends at the last.
        log: Equal steps multiply. A first tick of 0 stands one decade below the second then:
            what has no parameters is drawn beside what has a thousand.
    """

    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False) -> Axis:
        """The shortest axis with round ends that holds all values (finite, at least one)."""
        given = list(values)
        if not log:
            return cls(_linear_ticks(min(given), max(given)))
        positive = [value for value in given if value > 0]
        if not positive:
            return cls(_linear_ticks(0.0, 1.0))
        ticks = _log_ticks(min(positive), max(positive))
        return cls((0.0, *ticks) if len(positive) < len(given) else ticks, log=True)

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 at the first tick, 1 at the last."""
        first, last = self._flat(self.ticks[0]), self._flat(self.ticks[-1])
        return (self._flat(value) - first) / (last - first)

    def _flat(self, value: float) -> float:
        if not self.log:
            return value
        if value > 0:
            return math.log10(value)
        return math.log10(self.ticks[1]) - 1


def short(value: float) -> str:
    """A tick's label: ``12``, ``0.25``, ``50k``, ``1.2M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e12:
            unit = {"k": 1e3}.get(letter, size)
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _linear_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * min((m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw), default=10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def _log_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 2:
        step = math.ceil((last - first) / most)
        return tuple(10.0**power for power in range(first, last + step, step))
    fine = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    below = [tick for tick in fine if tick <= low * (1 + 1e-9)]
    above = [tick for tick in fine if tick >= high * (1 - 1e-9)]
    start, end = below[-1], above[0]
    if start == end:
        end = fine[fine.index(start) + 1]
    return tuple(float(f"{tick:.12g}") for tick in fine if start <= tick <= end)
