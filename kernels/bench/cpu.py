"""How adapters are best run on a CPU: the plan ``cpu``.

    python kernels/bench/cpu.py --threads 1 --out kernels/speechadapt_kernels/plans/cpu.json

Measures two things, each form in turn; seconds of the processor, so others may use it too. Between
two of them come tensors as wide as a feed-forward's, which leave caches and memory as a model does:
there, one as large as the batch takes longer to touch than a share of it.

- Bottlenecks of a batch in which each utterance has its own, in one batched product (together),
  each by itself (apart). The plan has the size of a batch from which apart is better. ``--others``
  measures two more, to see that neither is better than both: ``grouped``, PyTorch's grouped
  products, and ``compiled``, together by ``torch.compile``.
- One bottleneck of a large batch, so many bytes of the states at a time. The plan has how many.

Either size is chosen so that all measured cases take the least time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from timing import in_turn
from torch import Tensor

from speechadapt_kernels.bottleneck.folded import fold
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights, bottleneck
from speechadapt_kernels.plan import CpuPlan, cpu_plan, trying_cpu
from speechadapt_kernels.stacked import layer_norm

SIZES = ((512, 32), (768, 64), (1280, 64))  # of states and bottleneck
ADAPTERS = (2, 8, 16)
FRAMES = (1, 50, 150, 500, 1500)
UTTERANCES = (1, 4, 8)  # of one adapter, so long:
LONGEST = 1500  # frames
BLOCKS = tuple(1 << power for power in range(18, 24))  # bytes
WHOLE = 1 << 40  # bytes: all frames at once


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--others", action="store_true", help="measure what is not used too")
    parser.add_argument("--out", type=Path, help="plan to write")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    plan = CpuPlan(several(args.rounds, args.others), alone(args.rounds))
    print(f"\n{plan}")
    if args.out:
        part = args.out.with_name(args.out.name + ".part")
        part.write_text(json.dumps(asdict(plan)) + "\n", encoding="utf-8")
        part.replace(args.out)
    return 0


def several(rounds: int, others: bool) -> int:
    """Print a table of adapters together and apart; bytes from which apart is better."""
    print("| dim | adapters | frames | MiB | together (ms) | apart | grouped | compiled |")
    print("|---" * 8 + "|")
    sizes, gains = [], []
    for dim, width in SIZES:
        for count in ADAPTERS:
            for frames in FRAMES:
                taken = measured(dim, width, count, frames, rounds, others)
                ratios = {name: seconds / taken["together"] for name, seconds in taken.items()}
                size = 4 * count * frames * dim
                sizes.append(size)
                gains.append(math.log(ratios["apart"]))
                names = ("apart", "grouped", "compiled")
                cells = [f"{ratios[name]:.2f}" if name in ratios else "" for name in names]
                first = f"{size / 2**20:.2f} | {1e3 * taken['together']:.2f}"
                print(f"| {dim} | {count} | {frames} | {first} | {' | '.join(cells)} |", flush=True)
    return threshold(sizes, gains)


def alone(rounds: int) -> int:
    """Print a table of one adapter in blocks of several sizes; the bytes that are best."""
    print(f"\n| dim | utterances | whole (ms) | {' | '.join(f'{b >> 10} KiB' for b in BLOCKS)} |")
    print("|---" * (3 + len(BLOCKS)) + "|")
    gains = dict.fromkeys(BLOCKS, 0.0)
    for dim, width in SIZES:
        for batch in UTTERANCES:
            taken = in_blocks(dim, width, batch, rounds)
            ratios = {size: taken[size] / taken[WHOLE] for size in BLOCKS}
            for size, ratio in ratios.items():
                gains[size] += math.log(ratio)
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios.values())
            print(f"| {dim} | {batch} | {1e3 * taken[WHOLE]:.2f} | {cells} |", flush=True)
    return min(BLOCKS, key=lambda size: gains[size])


def threshold(sizes: Sequence[int], gains: Sequence[float]) -> int:
    """The size from which it is best to run apart.

    Args:
        sizes: Of the batches that were measured, bytes.
        gains: Logarithm of the time apart over the time together, of each.
    """

    def cost(least: int) -> float:
        return sum(gain for size, gain in zip(sizes, gains, strict=True) if size >= least)

    return min((*sorted(set(sizes)), max(sizes) + 1), key=cost)


@torch.inference_mode()
def measured(
    dim: int, width: int, count: int, frames: int, rounds: int, others: bool
) -> dict[str, float]:
    """Seconds of each form."""
    weights = _weights(dim, width, count)
    each = [
        BottleneckWeights(*(getattr(weights, f.name)[i : i + 1] for f in fields(weights)))
        for i in range(count)
    ]

    def together(x: Tensor) -> Tensor:
        return bottleneck(x, x, weights, "gelu")

    def apart(x: Tensor) -> Tensor:
        parts = zip(x.split(1), each, strict=True)
        return torch.cat([bottleneck(one, one, mine, "gelu") for one, mine in parts])

    forms: dict[str, Callable[[Tensor], Tensor]] = {"together": together, "apart": apart}
    if others:
        forms["grouped"] = partial(_grouped, weights)
        torch._dynamo.reset()
        forms["compiled"] = torch.compile(together, fullgraph=True)
    x = torch.randn(count, 1, frames, dim, generator=torch.Generator().manual_seed(0))
    for form in forms.values():
        torch.testing.assert_close(form(x), together(x))
    turns = {name: partial(_turn, form, x) for name, form in forms.items()}
    return {name: median(taken) for name, taken in in_turn(turns, rounds).items()}


@torch.inference_mode()
def in_blocks(dim: int, width: int, batch: int, rounds: int) -> dict[int, float]:
    """Seconds of one adapter on utterances of :data:`LONGEST` frames, by the size of a block."""
    folded = fold(_weights(dim, width, 1), torch.float32)
    slots = torch.zeros(batch, dtype=torch.int32)
    x = torch.randn(batch, 1, LONGEST, dim, generator=torch.Generator().manual_seed(0))

    def form(size: int, states: Tensor) -> Tensor:
        with trying_cpu(CpuPlan(cpu_plan().apart_from_bytes, size)):
            return fused_bottleneck(states[:, 0], folded, slots, "gelu")

    for size in BLOCKS:
        torch.testing.assert_close(form(size, x), form(WHOLE, x))
    turns = {size: partial(_turn, partial(form, size), x) for size in (WHOLE, *BLOCKS)}
    return {size: median(taken) for size, taken in in_turn(turns, rounds).items()}


def _turn(form: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Seconds of the processor, behind what leaves caches and memory as a feed-forward does."""
    wide = F.gelu(x.repeat(1, 1, 1, 4))
    states = wide.unflatten(-1, (4, -1)).mean(-2)
    del wide
    begun = time.process_time()
    form(states)
    return time.process_time() - begun


def _grouped(weights: BottleneckWeights, x: Tensor) -> Tensor:
    count, _, frames, _ = x.shape
    ends = torch.arange(1, count + 1, dtype=torch.int32) * frames

    def linear(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        made = F.grouped_mm(states.flatten(0, 2), weight.transpose(1, 2), offs=ends)
        return made.view(count, 1, frames, -1) + bias[:, None, None]

    assert weights.norm_weight is not None and weights.norm_bias is not None
    normed = layer_norm(x, weights.norm_weight, weights.norm_bias)
    hidden = F.gelu(linear(normed, weights.down, weights.down_bias))
    return x + linear(hidden, weights.up, weights.up_bias)


def _weights(dim: int, width: int, count: int) -> BottleneckWeights:
    generator = torch.Generator().manual_seed(1)

    def made(*shape: int) -> Tensor:
        return 0.05 * torch.randn(count, *shape, generator=generator)

    return BottleneckWeights(
        made(width, dim), made(width), made(dim, width), made(dim), 1 + made(dim), made(dim)
    )


if __name__ == "__main__":
    sys.exit(main())
