"""Compile every row of the plans for GPUs that need not be there, and look at the machine code.

    python kernels/bench/gate.py --arch 80 90 100

A kernel that spills registers to memory, or that does not use the tensor cores, is a defect: the
command then ends with 1. Needs Triton (which brings the assembler), no GPU. On Hopper, tiles of
64 frames and more should use its wgmma (HGMMA), smaller ones cannot.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before Triton is imported
    os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns that its default changes

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from speechadapt_kernels.bottleneck import kernels as bottleneck
from speechadapt_kernels.conformer import kernels as conformer
from speechadapt_kernels.fusion import kernels as fusion
from speechadapt_kernels.logmel import kernels as logmel
from speechadapt_kernels.logmel import launch as logmel_launch
from speechadapt_kernels.logmel.settings import HOP
from speechadapt_kernels.lowbit import kernels as lowbit
from speechadapt_kernels.plan import Row, read_plan

KERNELS = {
    "bottleneck.forward": bottleneck.forward_kernel,
    "bottleneck.backward": bottleneck.backward_kernel,
    "bottleneck.outer": bottleneck.outer_kernel,
    "fusion.score": fusion.score_kernel,
    "fusion.mix": fusion.mix_kernel,
    "conformer.glu": conformer.glu_kernel,
    "conformer.conv": conformer.conv_kernel,
    "logmel.spectrum": logmel.spectrum_kernel,
    "lowbit.forward": lowbit.forward_kernel,
}
# Kernels that are compiled in more than one way for a row.
VARIANTS = {"lowbit.forward": ({"BITS": 8, "RAISED": 128}, {"BITS": 1, "RAISED": 1})}
CONSTANTS = {
    "DIM": 1280,
    "OUT": 1280,
    "CENTRED": True,
    "SLICES": 1,
    "ACTIVATION": "gelu",
    "NORM": True,
    "BIAS": True,
    "SUMS": True,
    "SAME": True,
    "PACKED": False,
    "SCORES": True,
    "KERNEL": 31,
    "PAST": 32,
    "COUNT": 8,
    "ROOM": 8,
    "HOP": HOP,
    "DISTANCES": logmel_launch.DISTANCES,
    "FREQUENCIES": logmel_launch.PADDED_FREQUENCIES,
    "BINS": 128,
    "BLOCK_BINS": 128,
    "BLOCK_DISTANCES": logmel_launch.BLOCK_DISTANCES,
}
TYPES = {
    **dict.fromkeys(("slots", "offsets"), "*i32"),
    **dict.fromkeys(("frames", "rows", "samples"), "i32"),
    **dict.fromkeys(("scale", "epsilon", "floor"), "fp32"),
    **dict.fromkeys(
        ("down_sum", "down_bias", "up_bias", "bias_out", "sum_out", "means", "mean_out"), "*fp32"
    ),
    **dict.fromkeys(("reading_bias", "direct", "constant", "value_bias"), "*fp32"),
    **dict.fromkeys(("score_out", "score_in", "share_out"), "*fp32"),
    **dict.fromkeys(("value_sum", "gate_sum", "gate_bias", "conv", "conv_bias"), "*fp32"),
    **dict.fromkeys(("inner_weight", "inner_bias"), "*fp32"),
    **dict.fromkeys(("down_scale", "down_offset", "up_scale", "up_offset", "norm_weight"), "*fp32"),
    **dict.fromkeys(("waves", "cosines", "sines", "filters", "loudest_out"), "*fp32"),
    "lengths": "*i64",
}
STATES = "*bf16"
IN_FLOAT32 = ("bottleneck.outer", "logmel.spectrum")  # what they write
WIDEST = 256  # bottleneck


def main() -> int:
    """Compile and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="+", type=int, default=[80, 90, 100])
    parser.add_argument("--plan", default="default")
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS))
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    args = parser.parse_args()
    print(f"triton {triton.__version__}, bfloat16, {CONSTANTS['DIM']} values")
    print("| sm | kernel | width | frames | tile | registers | stack | spills | tensor cores | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    good = True
    rows = [row for row in read_plan(args.plan) if row.kernel in args.kernels]
    wanted = [
        (row, arch, variant)
        for arch in args.arch
        for row in rows
        for variant in VARIANTS.get(row.kernel, ({},))
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        for (row, arch, variant), used in zip(
            wanted, pool.map(usage, *zip(*wanted, strict=True)), strict=True
        ):
            fault = fault_of(row, arch, used)
            good &= fault is None
            tiles = row.tiles
            tile = f"{tiles.frames} × {tiles.dim}, {tiles.warps} warps, {tiles.stages} stages"
            name = " ".join([row.kernel, *(f"{k}={v}" for k, v in variant.items())])
            cells = [arch, name, row.width or WIDEST, row.frames or "any", tile]
            cells += [used["REG"], used["STACK"], used["spills"], used["tensor"], fault or ""]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0 if good else 1


def compiled(row: Row, arch: int, variant: dict[str, int]) -> Any:
    """The kernel of a row, compiled for an architecture (90 = sm_90)."""
    kernel, tiles, width = KERNELS[row.kernel], row.tiles, row.width or WIDEST
    wanted = (
        CONSTANTS
        | variant
        | {
            "WIDTH": width,
            "RANK": width,
            "CHANNELS": width,
            "BLOCK_FRAMES": tiles.frames,
            "BLOCK_DIM": tiles.dim,
        }
    )
    names = kernel.arg_names
    types = TYPES | ({"out": "*fp32"} if row.kernel in IN_FLOAT32 else {})
    if "BITS" in variant:
        types |= dict.fromkeys(("down", "up"), "*i8" if variant["BITS"] == 8 else "*u8")
    signature = {n: "constexpr" if n in wanted else types.get(n, STATES) for n in names}
    # Tensors of torch begin at multiples of 16 bytes.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if signature[name].startswith("*")
    }
    constants = {(names.index(n),): value for n, value in wanted.items() if n in names}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def usage(row: Row, arch: int, variant: dict[str, int]) -> dict[str, int]:
    """Registers, stack, instructions that spill, instructions of tensor cores."""
    kernel = compiled(row, arch, variant)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()

        def dump(option: str) -> str:
            command = [str(tool), option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        found = {name: int(n) for name, n in re.findall(r"(REG|STACK):(\d+)", dump("-res-usage"))}
        code = dump("-sass")
    found["spills"] = len(re.findall(r"\b(?:LDL|STL)\b", code))
    found["HGMMA"] = len(re.findall(r"\bHGMMA\b", code))
    found["tensor"] = len(re.findall(r"\b(?:HMMA|HGMMA|UTCHMMA)\b", code))
    return found


def faults(row: Row, arch: int) -> list[str]:
    """What is wrong with any variant of a row."""
    found = (fault_of(row, arch, usage(row, arch, v)) for v in VARIANTS.get(row.kernel, ({},)))
    return [fault for fault in found if fault]


def fault_of(row: Row, arch: int, used: dict[str, int]) -> str | None:
    """What is wrong with the machine code, in words; None = nothing."""
    if used["STACK"] or used["spills"]:
        return "spills"
    if not used["tensor"]:
        return "no tensor cores"
    if arch == 90 and row.tiles.frames >= 64 and not used["HGMMA"]:
        return "no wgmma"
    return None


if __name__ == "__main__":
    sys.exit(main())
