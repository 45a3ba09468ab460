"""Memory of many adapters on one base, resident and spilled.

    python eval/bench/resident.py --adapters 1000 --bottleneck 16

Prints the resident set of the process after each step (Linux), and checks that a batch of 16 random
adapters gives the same before and after the others were spilled.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
from pathlib import Path

import numpy as np
import torch

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.route import Route


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="openai/whisper-base")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--bottleneck", type=int, default=16)
    parser.add_argument("--keep-mb", type=int, default=50, help="what stays resident in the end")
    args = parser.parse_args()
    model = speechadapt.load(args.base)
    _report("base", 0)
    config = BottleneckConfig(bottleneck=args.bottleneck, points=("out",))
    sites = model.backbone.sites.values()
    for index in range(args.adapters):
        adapter = Adapter.fresh(
            f"a{index}", config, family_of(config), sites, AdapterInfo(), seed=index
        )
        for _, tensor in adapter.named_tensors():
            tensor.data.add_(0.01)
        model.bank.add(adapter)
    _report(f"{args.adapters} adapters", model.bank.resident_bytes)
    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    chosen = random.Random(0).sample(range(args.adapters), 16)
    routes: list[Route] = [f"a{index}" for index in chosen]
    before = model.encode([wave] * 16, routes, 0.5).states
    _report("after a batch of 16 of them", model.bank.resident_bytes)
    moved = model.bank.spill(args.keep_mb * 1_000_000)
    del adapter
    gc.collect()
    _report(f"{len(moved)} of them spilled", model.bank.resident_bytes)
    after = model.encode([wave] * 16, routes, 0.5).states
    print("largest difference of the batch", float((after - before).abs().max()))
    routes = [*moved[:16]]
    assert torch.isfinite(model.encode([wave] * 16, routes, 0.5).states).all()
    _report("after a batch of 16 spilled ones", model.bank.resident_bytes)


def _report(what: str, resident: int) -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    sizes = [re.search(rf"{key}:\s+(\d+) kB", status) for key in ("RssAnon", "RssFile")]
    anonymous, mapped = (int(size[1]) / 1e6 if size else float("nan") for size in sizes)
    print(
        f"{what:32} {anonymous:6.2f} GB, {mapped:5.2f} GB mapped from files; "
        f"adapters {resident / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
