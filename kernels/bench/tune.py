"""Look for better tiles for every row of a plan, on the GPU that is here, and write its own plan.

    python kernels/bench/tune.py --out kernels/speechadapt_kernels/plans/sm90.json --seconds 120

What a row holds for stays as it is. A candidate must compile without spilling and give right
results, twice the same, before it is timed; it replaces what is there only where it is faster by
more than the noise, and after its results were right on other inputs. A plan for an architecture
is what makes ``auto`` take the kernels there, so it is not written unless every row is right.
Candidates that differ least from what is there are tried first; with ``--seconds``, those that come
too late for their row's share of the time are not. ``--device cpu`` tries two for the first row of
each kernel, on a few frames: to see that the script runs (in Triton's interpreter, not compiled).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path

import gate
import torch
from cases import CASES
from problems import Problem, Shape
from run import checked, right
from timing import Turn, buffers_of, captured, in_turn, on_cpu

from speechadapt_kernels.bottleneck.folded import padded_width
from speechadapt_kernels.plan import Row, Tiles, parse_plan, read_plan, trying

# Which cases launch a kernel, in each of the ways that it is compiled.
CASES_OF = {
    "bottleneck.forward": ("bottleneck", "mixed bottleneck, packed"),
    "bottleneck.backward": ("bottleneck, trained",),
    "bottleneck.outer": ("bottleneck, trained",),
    "fusion.score": ("fusion of 8", "fusion of 8, routed"),
    "fusion.mix": ("fusion of 8", "fusion of 8, routed"),
    "conformer.glu": ("conformer",),
    "conformer.conv": ("conformer",),
    "logmel.spectrum": ("log-mel",),
    "lowbit.forward": ("bottleneck, 8 bits", "bottleneck, 1 bit"),
}
SIZES = ((1, 50), (8, 50), (1, 1500), (2, 1500), (8, 1500))  # utterances and positions
TINY = Shape("whisper-base", 1, 3)
ENOUGH = 0.97  # of the time of what is there, in the median and in three rounds of four


def main() -> int:
    """Tune every row; write the plan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", default="default", help="whose rows (default: default)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=math.inf, help="to try candidates in")
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("tune.py: there is no GPU to measure on", file=sys.stderr)
        return 2
    if device.type == "cpu" and args.out.name.startswith("sm"):
        parser.error(f"{args.out} would be the plan of a GPU, and nothing is measured on one")
    plan = read_plan(args.plan)
    made: list[Row] = []
    last = time.monotonic() + args.seconds
    # Not forked: CUDA runs in this process.
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for number, row in enumerate(plan, 1):
            if device.type == "cpu" and any(row.kernel == each.kernel for each in made):
                made.append(row)
                continue
            begun = time.monotonic()
            share = max(0.0, last - begun) / (len(plan) - number + 1)
            shapes = list(shapes_of(plan, row)) if device.type == "cuda" else [TINY]
            problems = list(problems_of(row, shapes, device))
            others = list(candidates(row))
            if device.type == "cuda":
                sound = compiled(row, others, pool, _arch(device), share / 3)
            else:
                sound = others[:1]
            best, gain, tried = tuned(row, sound, problems, device, args.rounds, begun + share)
            if best is None:
                print(f"row {number}, {row.kernel}: what is there gives wrong results")
                return 1
            made.append(replace(row, tiles=best))
            print(
                f"row {number}/{len(plan)}, {row.kernel}: {best} ({gain:.2f} x) of {tried} tried, "
                f"{time.monotonic() - begun:.0f} s",
                flush=True,
            )
    values = [{k: v for k, v in asdict(row).items() if v is not None} for row in made]
    parse_plan(json.loads(json.dumps(values)), args.out.stem)
    part = args.out.with_name(args.out.name + ".part")
    lines = ",\n".join(f"  {json.dumps(value)}" for value in values)
    part.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    part.replace(args.out)
    return 0


def candidates(row: Row) -> list[Tiles]:
    """What may be better than its tiles, those that differ in less first."""
    heights = {16, 32, 64, *((128,) if row.rows is None else ())}
    dims = {32} if row.kernel == "logmel.spectrum" else {64, 128}
    shared = {1, 2, 4} if row.kernel == "bottleneck.forward" and row.rows is not None else {1}
    choices = (heights, dims, {4, 8}, {2, 3}, shared)
    own = vars(row.tiles).values()
    wanted = (sorted(values | {mine}) for values, mine in zip(choices, own, strict=True))
    found = [
        tiles
        for tiles in itertools.starmap(Tiles, itertools.product(*wanted))
        # Others are launched with fewer columns than the gate compiles.
        if gate.CONSTANTS["DIM"] // tiles.splits % tiles.dim == 0
    ]
    there = vars(row.tiles).items()
    distances = {tiles: sum(getattr(tiles, k) != v for k, v in there) for tiles in found}
    return sorted((t for t, d in distances.items() if d), key=distances.__getitem__)


def compiled(
    row: Row, wanted: Sequence[Tiles], pool: ProcessPoolExecutor, arch: int, seconds: float
) -> list[Tiles]:
    """Those that compile without a fault, as far as there is time."""
    jobs = {pool.submit(gate.faults, replace(row, tiles=t), arch): t for t in wanted}
    done, late = wait(jobs, None if seconds == math.inf else seconds)
    for job in late:
        job.cancel()
    return [tiles for job, tiles in jobs.items() if job in done and not job.result()]


def tuned(
    row: Row,
    sound: Sequence[Tiles],
    problems: Sequence[Problem],
    device: torch.device,
    rounds: int,
    last: float,
) -> tuple[Tiles | None, float, int]:
    """The best, how many times faster than what is there, and how many were tried.

    None = what is there is wrong. Candidates that would come after ``last`` are left out.
    """
    if not _is_right(row.kernel, row.tiles, problems, 0):
        return None, 0.0, 1
    good = [row.tiles]
    for tiles in sound:
        if time.monotonic() > last:
            break
        if _is_right(row.kernel, tiles, problems, 0):
            good.append(tiles)
    if len(good) == 1:
        return row.tiles, 1.0, 1
    seconds: dict[str, list[float]] = {str(tiles): [1.0] * rounds for tiles in good}
    for problem in problems:
        buffers, turns = buffers_of(problem, device), {}
        for tiles in good:
            turns[str(tiles)] = _turn(row.kernel, tiles, problem, buffers, device)
        for name, taken in in_turn(turns, rounds).items():
            seconds[name] = [a * b for a, b in zip(seconds[name], taken, strict=True)]
    there = str(row.tiles)
    by_name = {str(tiles): tiles for tiles in good}
    for name in ranked(seconds, there):
        if _is_right(row.kernel, by_name[name], problems, 100):
            gain = statistics.median(seconds[there]) / statistics.median(seconds[name])
            return by_name[name], gain ** (1 / len(problems)), len(good)
    return None, 0.0, len(good)


def ranked(seconds: dict[str, list[float]], there: str) -> list[str]:
    """Names by their median, those that are clearly faster than what is there, and then that."""
    ratios = {
        name: [a / b for a, b in zip(taken, seconds[there], strict=True)]
        for name, taken in seconds.items()
    }
    faster = [
        name
        for name, each in ratios.items()
        if statistics.median(each) < ENOUGH and sum(r < ENOUGH for r in each) >= 0.75 * len(each)
    ]
    return [*sorted(faster, key=lambda name: statistics.median(ratios[name])), there]


def shapes_of(plan: Sequence[Row], row: Row) -> Iterator[Shape]:
    """Sizes whose launches take that row: the model's own, else with the widest bottleneck.

    Raises:
        ValueError: None does.
    """
    for bottleneck in (None, gate.WIDEST, gate.widest(row)):
        # As wide as what the gate compiles, in processes of its own: then that is not done again.
        shapes = [Shape("whisper-large-v3", batch, frames, bottleneck) for batch, frames in SIZES]
        found = [shape for shape in shapes if selected(plan, row, shape) is row]
        if found:
            yield from found
            return
    raise ValueError(f"no size that is tried takes the row {row}")


def selected(plan: Sequence[Row], row: Row, shape: Shape) -> Row:
    """The row that a launch of the kernel of ``row`` takes, on states of its type."""
    asked = asks(row.kernel, shape)
    return next(each for each in plan if each.fits(row.kernel, *asked, dtype_of(row)))


def asks(kernel: str, shape: Shape) -> tuple[int, int]:
    """With which width and how many rows a launch asks for its tiles."""
    if kernel == "logmel.spectrum":
        return 1, 2 * shape.rows
    return padded_width(shape.width), shape.rows


def problems_of(row: Row, shapes: Sequence[Shape], device: torch.device) -> Iterator[Problem]:
    """Every case of its kernel in every size."""
    dtype = dtype_of(row)
    if device.type == "cpu" and dtype == torch.bfloat16:
        dtype = torch.float16  # the interpreter cannot compute in the other
    for name, shape in itertools.product(CASES_OF[row.kernel], shapes):
        yield CASES[name](shape, device, dtype)


def dtype_of(row: Row) -> torch.dtype:
    """Of the states that a row is measured on: log-mel features have none but float32."""
    single = row.dtype == "float32" or row.kernel == "logmel.spectrum"
    return torch.float32 if single else torch.bfloat16


def _is_right(kernel: str, tiles: Tiles, problems: Sequence[Problem], seed: int) -> bool:
    with trying(kernel, tiles):
        try:
            return all(right(problem, checked(problem, seed)) for problem in problems)
        except Exception as error:  # too much shared memory, a compiler's, or the device's
            reason = (str(error).splitlines() or [""])[0]
            print(f"  {kernel} {tiles}: {type(error).__name__}: {reason}", file=sys.stderr)
            return False


def _turn(
    kernel: str, tiles: Tiles, problem: Problem, buffers: list[object], device: torch.device
) -> Turn:
    system = next(iter(problem.systems.values()))
    if device.type == "cuda":
        with trying(kernel, tiles):
            return captured(system, buffers)

    def tried(*inputs: object) -> object:
        with trying(kernel, tiles):
            return system(*inputs)

    return on_cpu(tried, buffers)


def _arch(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


if __name__ == "__main__":
    sys.exit(main())
