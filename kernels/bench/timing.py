"""How long systems take: on a CPU, and on a GPU as they are launched and in a CUDA graph."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from cases import Problem

Turn = Callable[[], float]  # runs a system once; seconds of one call


def buffers_of(problem: Problem, device: torch.device) -> list[Any]:
    """Inputs to take in turn: on a GPU, twice what its L2 holds."""
    inputs = problem.make(0)
    if device.type != "cuda":
        return [inputs]
    room = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    count = max(1, -(-room // sum(tensor.nbytes for tensor in inputs)))
    return [inputs, *(problem.make(2 * index) for index in range(1, count))]


def in_turn(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, after one to warm up."""
    for turn in turns.values():
        turn()
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name].append(turn())
    return taken


def on_cpu(system: Callable[..., Any], buffers: list[Any]) -> Turn:
    """Seconds of the processor, all threads together: others may use it as well."""
    each = itertools.cycle(buffers)

    def turn() -> float:
        inputs = next(each)
        started = time.process_time()
        system(*inputs)
        return time.process_time() - started

    return turn


def launched(system: Callable[..., Any], buffers: list[Any]) -> Turn:
    """As it is launched from Python, on each input."""

    def every() -> None:
        for inputs in buffers:
            system(*inputs)

    return _timed(every, len(buffers))


def captured(system: Callable[..., Any], buffers: list[Any]) -> Turn:
    """Captured in one CUDA graph, on each input."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for inputs in buffers[:2]:
            system(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for inputs in buffers:
            system(*inputs)
    return _timed(graph.replay, len(buffers))


def _timed(work: Callable[[], Any], count: int) -> Turn:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def turn() -> float:
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000 / count

    return turn
