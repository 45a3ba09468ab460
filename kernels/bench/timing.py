"""How long systems take: on a CPU, and on a GPU as they are launched and in a CUDA graph."""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Any

import torch
from problems import Problem
from torch import Tensor

Turn = Callable[[], float]  # runs a system once; seconds of one call
CALLS = 64  # of a system in one turn, at most
TURN = 5e-3  # seconds of a turn on a CPU, or one call
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt
MOST_APART = 2e-2  # of a graph and the launches it was captured from: they may add in another order


def buffers_of(problem: Problem, device: torch.device) -> list[Any]:
    """Inputs to take in turn: on a GPU, twice what its L2 holds, at most :data:`CALLS`."""
    inputs = problem.make(0)
    if device.type != "cuda":
        return [inputs]
    count = -(-2 * _cache_size(device) // sum(tensor.nbytes for tensor in inputs))
    return [inputs, *(problem.make(2 * index) for index in range(1, min(count, CALLS)))]


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
    """Seconds of the processor, all threads together: others may use it as well.

    A turn is as many calls as take :data:`TURN`: Python is slow where it comes by once.
    """
    each = itertools.cycle(buffers)

    def run(count: int) -> float:
        started = time.process_time()
        for inputs in itertools.islice(each, count):
            system(*inputs)
        return (time.process_time() - started) / count

    run(1)  # what is made once
    return partial(run, max(1, min(CALLS, int(TURN / max(run(1), 1e-6)))))


def launched(system: Callable[..., Any], buffers: list[Any]) -> Turn:
    """As it is launched from Python, on each input."""

    def every() -> None:
        for inputs in buffers:
            system(*inputs)

    return _timed(every, len(buffers))


def captured(system: Callable[..., Any], buffers: list[Any]) -> Turn:
    """Captured in one CUDA graph, on each input.

    What the system reads beside its inputs must live as long as what this returns.

    Raises:
        RuntimeError: It cannot be captured, or the graph gives something else than the launches.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        system(*buffers[0])
        wanted = system(*buffers[-1])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for inputs in buffers:
            made = system(*inputs)
    graph.replay()
    torch.cuda.synchronize()
    if not apart(made, wanted) < MOST_APART:
        raise RuntimeError("a CUDA graph gives something else than the launches it is made of")
    return _timed(graph.replay, len(buffers))


def apart(found: Any, wanted: Any) -> float:
    """Largest relative difference of two results: tensors, or tuples of them."""
    pairs = [(found, wanted)] if isinstance(found, Tensor) else zip(found, wanted, strict=True)
    ratios = [(a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-30) for a, b in pairs]
    return float(torch.stack(ratios).max())


def keep_memory() -> None:
    """Let glibc keep what is freed, where there is one.

    Otherwise it gives memory of such sizes back and takes it anew, by luck at every call or never,
    and touching fresh pages takes as long as the sums of one operator.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 2**25)  # the most it takes


def _timed(work: Callable[[], Any], count: int) -> Turn:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def turn() -> float:
        _empty_cache(torch.cuda.current_device())
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000 / count

    return turn


def _empty_cache(device: int) -> None:
    """Leave nothing of what is measured in the L2."""
    _filler(device).zero_()


@cache
def _filler(device: int) -> Tensor:
    where = torch.device("cuda", device)
    return torch.empty(2 * _cache_size(where), dtype=torch.uint8, device=where)


def _cache_size(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).L2_cache_size)
