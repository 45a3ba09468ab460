"""Look for better tiles for every row of a plan, on the GPU that is here, and write its own plan.

    python kernels/bench/tune.py --out kernels/speechadapt_kernels/plans/sm90.json

What a row holds for stays as it is. A candidate must compile without spilling and give right
results, twice the same, before it is timed; it replaces what is there only where it is faster by
more than the noise, and after its results were right on other inputs. A plan for an architecture
is what makes ``auto`` take the kernels there, so it is not written unless every row is right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import gate
import torch
from cases import CASES, Problem, Shape
from run import checked, right
from timing import Turn, buffers_of, captured, in_turn

from speechadapt_kernels.plan import Row, Tiles, parse_plan, read_plan, trying

# Which case launches a kernel.
CASE_OF = {
    "bottleneck.forward": "bottleneck",
    "bottleneck.backward": "bottleneck, trained",
    "bottleneck.outer": "bottleneck, trained",
    "fusion.score": "fusion of 8",
    "fusion.mix": "fusion of 8",
    "conformer.glu": "conformer",
    "conformer.conv": "conformer",
    "logmel.spectrum": "log-mel",
    "lowbit.forward": "bottleneck, 8 bits",
}
ENOUGH = 0.97  # of the time of what is there, in the median and in three rounds of four
DTYPE = torch.bfloat16


def main() -> int:
    """Tune every row; write the plan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", default="default", help="whose rows (default: default)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("tune.py: there is no GPU to measure on", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    major, minor = torch.cuda.get_device_capability(device)
    rows = read_plan(args.plan)
    made = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for number, row in enumerate(rows, 1):
            wanted = [row.tiles, *(t for t in candidates(row) if t != row.tiles)]
            tried = [replace(row, tiles=tiles) for tiles in wanted]
            compiled = pool.map(gate.faults, tried, itertools.repeat(10 * major + minor))
            sound = [r.tiles for r, fault in zip(tried, compiled, strict=True) if not fault]
            best, gain = tuned(row, sound, device, args.rounds)
            if best is None:
                print(f"row {number}, {row.kernel}: nothing that was tried is right")
                return 1
            made.append(replace(row, tiles=best))
            print(f"row {number}/{len(rows)}, {row.kernel}: {best} ({gain:.2f} x)", flush=True)
    values = [{k: v for k, v in asdict(row).items() if v is not None} for row in made]
    parse_plan(json.loads(json.dumps(values)), args.out.stem)
    part = args.out.with_name(args.out.name + ".part")
    lines = ",\n".join(f"  {json.dumps(value)}" for value in values)
    part.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    part.replace(args.out)
    return 0


def candidates(row: Row) -> Iterator[Tiles]:
    """What may be better than its tiles."""
    heights = (16, 32, 64, 128) if row.frames is None else (16, 32, 64)
    dims = (32,) if row.kernel == "logmel.spectrum" else (64, 128)
    for frames, dim, warps, stages in itertools.product(heights, dims, (4, 8), (2, 3)):
        yield Tiles(frames, dim, warps, stages)


def tuned(
    row: Row, sound: Sequence[Tiles], device: torch.device, rounds: int
) -> tuple[Tiles | None, float]:
    """The best of what compiles, and how many times faster than what is there."""
    problems = list(_problems(row, device))
    good = [tiles for tiles in sound if _is_right(row.kernel, tiles, problems, 0)]
    if not good:
        return None, 0.0
    seconds: dict[str, list[float]] = {str(tiles): [1.0] * rounds for tiles in good}
    for problem in problems:
        buffers, turns = buffers_of(problem, device), {}
        for tiles in good:
            with trying(row.kernel, tiles):
                turns[str(tiles)] = _turn(problem, buffers)
        for name, taken in in_turn(turns, rounds).items():
            seconds[name] = [a * b for a, b in zip(seconds[name], taken, strict=True)]
    order = ranked(seconds, str(good[0]))
    by_name = {str(tiles): tiles for tiles in good}
    for name in order:
        if _is_right(row.kernel, by_name[name], problems, 100):
            gain = statistics.median(seconds[str(good[0])]) / statistics.median(seconds[name])
            return by_name[name], gain ** (1 / len(problems))
    return None, 0.0


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


def _problems(row: Row, device: torch.device) -> Iterator[Problem]:
    """Of the sizes that a row is for."""
    case = CASES[CASE_OF[row.kernel]]
    for model in ("whisper-base", "whisper-large-v3"):
        frames = min(row.frames or 1500, 1500)
        for batch in (1, 8) if row.frames else (8,):
            width = None if row.width or row.kernel == "logmel.spectrum" else gate.WIDEST
            yield case(Shape(model, batch, frames, width), device, DTYPE)


def _is_right(kernel: str, tiles: Tiles, problems: Sequence[Problem], seed: int) -> bool:
    with trying(kernel, tiles):
        try:
            return all(right(problem, checked(problem, seed)) for problem in problems)
        except RuntimeError as error:  # too much shared memory, or a fault on the device
            print(f"  {kernel} {tiles}: {str(error).splitlines()[0]}", file=sys.stderr)
            return False


def _turn(problem: Problem, buffers: list[object]) -> Turn:
    return captured(next(iter(problem.systems.values())), buffers)


if __name__ == "__main__":
    sys.exit(main())
