"""Check and time every operator against plain PyTorch, its compiler, a CUDA graph and peers.

    python kernels/bench/run.py --out bench.csv
    python kernels/bench/run.py --device cpu --models whisper-base --batches 1 8 --frames 50
    python kernels/bench/run.py --predict

An operator whose result is wrong is not timed; the command then ends with 1. On a GPU every system
is measured as it is launched and in a captured CUDA graph, with as many inputs in turn as the L2
cannot hold. Systems take turns, so that a busy machine slows all of them alike; the median of the
rounds counts. Writes one line for each case and system, and prints a table. ``--predict`` measures
nothing: the least time that each case could take on an H200, from what it moves and computes.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from cases import CASES, MODELS, Problem, Shape
from floors import H200
from torch import Tensor

from speechadapt_kernels.dispatch import explain

# ‖result - definition‖ / ‖definition‖ of ours, in float64 on the same rounded inputs.
MOST = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in MOST}
COLUMNS = (
    *("case", "model", "dim", "width", "batch", "frames", "dtype", "system"),
    *("microseconds", "fastest", "floor", "error", "path", "device", "torch", "commit"),
)


def main() -> int:
    """Check, measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16, on a CPU float32")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--frames", nargs="+", type=int, help="default: those of each model")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=Path("bench.csv"))
    parser.add_argument("--predict", action="store_true", help="floors of an H200 alone")
    args = parser.parse_args()
    device = torch.device("cpu" if args.predict else args.device)
    dtype = DTYPES[args.dtype or ("float32" if device.type == "cpu" else "bfloat16")]
    wanted = [
        (name, Shape(model, batch, frames))
        for name in args.cases
        for model in args.models
        for batch, frames in itertools.product(args.batches, args.frames or MODELS[model][2])
        if _makes_sense(name, model, batch)
    ]
    if args.predict:
        _predict(wanted, torch.bfloat16)
        return 0
    good = True
    with _rows_of(args.out) as write:
        for name, shape in wanted:
            problem = CASES[name](shape, device, dtype)
            error, seconds = measured(problem, device, dtype, args.rounds, not args.no_compile)
            good &= bool(seconds)
            common = _described(name, shape, problem, device, dtype, error)
            for system, taken in seconds.items() or [("not timed: its result is wrong", [])]:
                timed = {
                    "system": system,
                    "microseconds": f"{1e6 * statistics.median(taken):.2f}" if taken else "",
                    "fastest": f"{1e6 * min(taken):.2f}" if taken else "",
                }
                write(common | timed)
            print(_line(name, shape, problem, error, seconds, device), flush=True)
    return 0 if good else 1


def measured(
    problem: Problem, device: torch.device, dtype: torch.dtype, rounds: int, compiles: bool
) -> tuple[float, dict[str, list[float]]]:
    """Error of the first system, and seconds of each round of all; none if the error is large."""
    inputs = problem.make(0)
    ours = next(iter(problem.systems.values()))
    wanted = problem.wanted(*inputs)
    error = _difference(problem.found(ours(*inputs)), wanted)
    # Log-mel features are float32 whatever the states are.
    if not error < MOST[inputs[0].dtype] * (5 if problem.trains else 1):
        return error, {}
    systems = dict(problem.systems)
    if compiles and not problem.trains:
        torch._dynamo.reset()
        systems["compile"] = torch.compile(problem.systems["eager"], fullgraph=True)
    size = sum(tensor.nbytes for tensor in inputs)
    room = 2 * torch.cuda.get_device_properties(device).L2_cache_size if _is_gpu(device) else 0
    buffers = [problem.make(seed) for seed in range(0, 2 * max(1, -(-room // size)), 2)]
    turns: dict[str, Callable[[], float]] = {}
    for name, system in systems.items():
        if _is_gpu(device):
            turns[name] = _launched(system, buffers)
            turns[f"{name}, graph"] = _captured(system, buffers)
        else:
            turns[name] = _on_cpu(system, buffers)
    for turn in turns.values():
        turn()
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name].append(turn())
    return error, taken


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Relative, over all values; NaN anywhere is infinite."""
    found, wanted = found.detach().double(), wanted.to(found.device)
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - wanted).norm() / wanted.norm())


def _on_cpu(system: Callable[..., Any], buffers: list[Any]) -> Callable[[], float]:
    """Seconds of the processor, all threads together: others may use it as well."""
    each = itertools.cycle(buffers)

    def turn() -> float:
        inputs = next(each)
        started = time.process_time()
        system(*inputs)
        return time.process_time() - started

    return turn


def _launched(system: Callable[..., Any], buffers: list[Any]) -> Callable[[], float]:
    """As it is launched from Python, on each input."""

    def every() -> None:
        for inputs in buffers:
            system(*inputs)

    return _timed(every, len(buffers))


def _captured(system: Callable[..., Any], buffers: list[Any]) -> Callable[[], float]:
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


def _timed(work: Callable[[], Any], count: int) -> Callable[[], float]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def turn() -> float:
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000 / count

    return turn


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _makes_sense(name: str, model: str, batch: int) -> bool:
    if name == "mixed bottleneck":
        return batch > 1
    return name != "log-mel" or model.startswith("whisper")


def _described(
    name: str,
    shape: Shape,
    problem: Problem,
    device: torch.device,
    dtype: torch.dtype,
    error: float,
) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if _is_gpu(device) else "CPU"
    return {
        "case": name,
        "model": shape.model,
        "dim": shape.dim,
        "width": shape.width,
        "batch": shape.batch,
        "frames": shape.frames,
        "dtype": str(dtype).removeprefix("torch."),
        "floor": f"{1e6 * problem.work.floor(H200):.2f}",
        "error": f"{error:.1e}",
        "path": explain(device, dtype)[0],
        "device": gpu,
        "torch": torch.__version__,
        "commit": _commit(),
    }


def _line(
    name: str,
    shape: Shape,
    problem: Problem,
    error: float,
    seconds: dict[str, list[float]],
    device: torch.device,
) -> str:
    case = f"{name:20} {shape.model:30} batch {shape.batch:2} frames {shape.frames:4}"
    if not seconds:
        return f"{case}  WRONG: error {error:.1e}; not timed"
    middle = {system: statistics.median(taken) for system, taken in seconds.items()}
    ours = middle["fused, graph" if _is_gpu(device) else "fused"]
    others = [f"{system} {value / ours:.2f} x" for system, value in middle.items()]
    floor = f", floor {problem.work.floor(H200) / ours:.0%}" if _is_gpu(device) else ""
    return f"{case}  {1e6 * ours:.1f} us{floor}: {', '.join(others)}"


def _predict(wanted: list[tuple[str, Shape]], dtype: torch.dtype) -> None:
    print("| case | model | batch | frames | floor (us) |\n|---|---|---|---|---|")
    for name, shape in wanted:
        floor = CASES[name](shape, torch.device("cpu"), dtype).work.floor(H200)
        cells = (name, shape.model, shape.batch, shape.frames, f"{1e6 * floor:.2f}")
        print(f"| {' | '.join(map(str, cells))} |")


@contextmanager
def _rows_of(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write lines of a table, which is there once all of them are."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        yield writer.writerow
    part.replace(path)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
