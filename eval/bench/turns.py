"""Systems that take turns in one process, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping


def table(title: str, runs: Mapping[str, Iterator[float]], rounds: int) -> None:
    """Print the median over the rounds of each system's seconds as a ratio to the first one's.

    Args:
        title: What is measured.
        runs: By name; each step of one gives the seconds it took.
        rounds: How many, after one to warm up.
    """
    for run in runs.values():
        next(run)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(next(run))
    frozen, *others = taken
    base = taken[frozen]
    print(f"\n{title}: {frozen} {1000 * statistics.median(base):.2f} ms")
    for name in others:
        ratio = statistics.median(s / b for s, b in zip(taken[name], base, strict=True))
        print(f"  {name:45} {ratio:6.3f} x")
