"""Check and time every operator against plain PyTorch, its compiler, a CUDA graph and peers.

    python kernels/bench/run.py --out bench.csv
    python kernels/bench/run.py --device cpu --models whisper-base --batches 1 8 --frames 50
    python kernels/bench/run.py --predict

An operator whose result is wrong is not timed; the command then ends with 1, after all others. On
a GPU every system is measured as it is launched and in a captured CUDA graph, with nothing in the
L2 at first and other inputs at each call. Systems take turns, so that a busy machine slows all of
them alike; the median of the rounds counts. ``torch.compile`` takes seconds for each size, so it is
measured at one size of each operator. Writes one line for each case and system, and prints a table.
``--predict`` measures nothing: the least time that each case could take on an H200, from what it
moves and computes.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from cases import CASES
from floors import H200
from problems import MODELS, Problem, Shape
from timing import Turn, buffers_of, captured, in_turn, keep_memory, launched, on_cpu
from torch import Tensor

from speechadapt_kernels.dispatch import explain

# ‖result - definition‖ / ‖definition‖ of ours, in float64 on the same rounded inputs.
MOST = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in MOST}
COMPILED = Shape("whisper-small, wav2vec2-base", 8, 1500)  # what torch.compile is measured at
COLUMNS = (
    *("case", "model", "dim", "width", "batch", "frames", "dtype", "system"),
    *("microseconds", "fastest", "floor", "error", "path", "device", "versions", "commit"),
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
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 1, 32])
    parser.add_argument("--frames", nargs="+", type=int, help="default: those of each model")
    parser.add_argument("--rounds", type=int, default=20, help="0 = check only")
    parser.add_argument("--seconds", type=float, help="after which no other case is begun")
    parser.add_argument("--compile", choices=("some", "all", "none"), default="some")
    parser.add_argument("--out", type=Path, default=Path("bench.csv"))
    parser.add_argument("--predict", action="store_true", help="floors of an H200 alone")
    args = parser.parse_args()
    device = torch.device("cpu" if args.predict else args.device)
    dtype = DTYPES[args.dtype or ("float32" if device.type == "cpu" else "bfloat16")]
    wanted = [
        (name, Shape(model, batch, frames))
        for batch in args.batches
        for model in args.models
        for frames in args.frames or MODELS[model][2]
        for name in args.cases
        if _makes_sense(name, model, batch)
    ]
    if args.predict:
        _predict(wanted, torch.bfloat16)
        return 0
    if not _is_gpu(device):
        keep_memory()
    last = time.monotonic() + (args.seconds or math.inf)
    wrong = 0
    with _rows_of(args.out) as write:
        for done, (name, shape) in enumerate(wanted):
            if time.monotonic() > last:
                print(f"out of time: {len(wanted) - done} of {len(wanted)} cases not measured")
                break
            compiles = {"some": shape == COMPILED, "all": True, "none": False}[args.compile]
            case = f"{name:24} {shape.model:28} batch {shape.batch:2} frames {shape.frames:4}"
            try:
                problem = CASES[name](shape, device, dtype)
                error, seconds = measured(problem, device, args.rounds, compiles)
            except Exception as failure:  # of a compiler or a device, and the others go on
                wrong += 1
                reason = (str(failure).splitlines() or [""])[0]
                print(f"{case}  FAILED: {type(failure).__name__}: {reason}", flush=True)
                continue
            wrong += not right(problem, error)
            common = _described(name, shape, problem, device, dtype, error)
            for system, taken in seconds.items() or [("not timed", [])]:
                timed = {
                    "system": system,
                    "microseconds": f"{1e6 * statistics.median(taken):.2f}" if taken else "",
                    "fastest": f"{1e6 * min(taken):.2f}" if taken else "",
                }
                write(common | timed)
            print(f"{case}  {_line(problem, error, seconds, device)}", flush=True)
    return 1 if wrong else 0


def measured(
    problem: Problem, device: torch.device, rounds: int, compiles: bool
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
    """Largest error of all that ours gives; infinite where it differs the second time."""
    inputs = problem.make(seed)
    ours = next(iter(problem.systems.values()))
    first, again = (problem.found(ours(*inputs)) for _ in range(2))
    if not all(map(torch.equal, first, again)):
        return float("inf")
    wanted = problem.wanted(*inputs)
    return max(difference(a, b) for a, b in zip(first, wanted, strict=True))


def right(problem: Problem, error: float) -> bool:
    """Whether such an error is rounding."""
    return error < MOST[problem.dtype] * (5 if problem.trains else 1)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative, over the values of one tensor; NaN anywhere is infinite."""
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
        "dtype": str(problem.dtype).removeprefix("torch."),
        "floor": f"{1e6 * problem.work.floor(H200):.4g}",
        "error": f"{error:.1e}",
        "path": ": ".join(explain(device, dtype)),
        "device": gpu,
        "versions": versions(),
        "commit": commit(),
    }


def _line(
    problem: Problem, error: float, seconds: dict[str, list[float]], device: torch.device
) -> str:
    if not right(problem, error):
        return f"WRONG: error {error:.1e}; not timed"
    if not seconds:
        return f"right: error {error:.1e}"
    middle = {system: statistics.median(taken) for system, taken in seconds.items()}
    ours = middle["fused, graph" if _is_gpu(device) else "fused"]
    others = [f"{system} {value / ours:.2f} x" for system, value in middle.items()]
    floor = f", floor {problem.work.floor(H200) / ours:.0%}" if _is_gpu(device) else ""
    return f"{1e6 * ours:.1f} us{floor}: {', '.join(others)}"


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

        def write(row: dict[str, Any]) -> None:
            writer.writerow(row)
            file.flush()

        yield write
    part.replace(path)


def versions() -> str:
    """Of what decides how fast it is."""
    triton = f"triton {version('triton')}" if find_spec("triton") else "no triton"
    return f"torch {torch.__version__}, {triton}"


def commit() -> str:
    """Of this checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
