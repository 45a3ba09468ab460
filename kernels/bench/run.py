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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from cases import CASES, MODELS, Problem, Shape
from floors import H200
from timing import Turn, buffers_of, captured, in_turn, launched, on_cpu
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
    parser.add_argument("--rounds", type=int, default=20, help="0 = check only")
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
            good &= right(problem, error)
            common = _described(name, shape, problem, device, dtype, error)
            for system, taken in seconds.items() or [("not timed", [])]:
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
    error = checked(problem)
    if not rounds or not right(problem, error):
        return error, {}
    systems = dict(problem.systems)
    if compiles and not problem.trains:
        torch._dynamo.reset()
        systems["compile"] = torch.compile(problem.systems["eager"], fullgraph=True)
    buffers = buffers_of(problem, device)
    turns: dict[str, Turn] = {}
    for name, system in systems.items():
        if _is_gpu(device):
            turns[name] = launched(system, buffers)
            # Ours must stand it: what cannot be captured cannot be served.
            with suppress(*([RuntimeError] if name in problem.peers else [])):
                turns[f"{name}, graph"] = captured(system, buffers)
        else:
            turns[name] = on_cpu(system, buffers)
    return error, in_turn(turns, rounds)


def checked(problem: Problem, seed: int = 0) -> float:
    """Error of the first system; infinite where it gives something else the second time."""
    inputs = problem.make(seed)
    ours = next(iter(problem.systems.values()))
    first, again = (problem.found(ours(*inputs)) for _ in range(2))
    if not torch.equal(first, again):
        return float("inf")
    return _difference(first, problem.wanted(*inputs))


def right(problem: Problem, error: float) -> bool:
    """Whether such an error is rounding."""
    dtype = problem.make(0)[0].dtype  # log-mel features are float32 whatever the states are
    return error < MOST[dtype] * (5 if problem.trains else 1)


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Relative, over all values; NaN anywhere is infinite."""
    found, wanted = found.detach().double(), wanted.to(found.device)
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - wanted).norm() / wanted.norm())


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
        "floor": f"{1e6 * problem.work.floor(H200):.4g}",
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
    if not right(problem, error):
        return f"{case}  WRONG: error {error:.1e}; not timed"
    if not seconds:
        return f"{case}  right: error {error:.1e}"
    middle = {system: statistics.median(taken) for system, taken in seconds.items()}
    ours = middle["fused, graph" if _is_gpu(device) else "fused"]
    others = [f"{system} {value / ours:.2f} x" for system, value in middle.items()]
    floor = f", floor {problem.work.floor(H200) / ours:.0%}" if _is_gpu(device) else ""
    return f"{case}  {1e6 * ours:.1f} us{floor}: {', '.join(others)}"


def _predict(wanted: list[tuple[str, Shape]], dtype: torch.dtype) -> None:
    print("| case | model | batch | frames | floor (us) |\n|---|---|---|---|---|")
    for name, shape in wanted:
        floor = CASES[name](shape, torch.device("cpu"), dtype).work.floor(H200)
        cells = (name, shape.model, shape.batch, shape.frames, f"{1e6 * floor:.3g}")
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
