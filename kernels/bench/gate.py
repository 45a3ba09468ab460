"""Compile every row of the plans for GPUs that need not be there, and look at the machine code.

    python kernels/bench/gate.py --arch 80 90 100

A kernel that spills registers to memory, or that does not use the tensor cores, is a defect: the
command then ends with 1. Needs Triton (which brings the assembler), no GPU. Tiles of 64 frames and
more should use the instructions of their own that Hopper (wgmma, HGMMA) and Blackwell (tcgen05,
UTCHMMA) have; smaller ones cannot. Every kernel is compiled as it is launched most; on Hopper also
in the other ways that it is launched in, and for float32.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before Triton is imported
    os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns that its default changes

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from speechadapt_kernels import layout
from speechadapt_kernels.bottleneck import kernels as bottleneck
from speechadapt_kernels.conformer import kernels as conformer
from speechadapt_kernels.fusion import kernels as fusion
from speechadapt_kernels.logmel import kernels as logmel
from speechadapt_kernels.logmel import launch as logmel_launch
from speechadapt_kernels.logmel.settings import HOP
from speechadapt_kernels.lowbit import kernels as lowbit
from speechadapt_kernels.plan import KERNELS as PLANNED
from speechadapt_kernels.plan import WIDEST, Row, read_plan

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
    "logmel.scale": logmel.scale_kernel,
}
Variant = dict[str, Any]  # constants, and integers that Triton knows more about than their type
# A kernel that is launched behind that of the row, with no tiles of a plan and no products.
BESIDE = "beside"
# As launched by LoRA beside a layer of two slices.
SLICED = {"SLICES": 2, "OUT": 2560, "NORM": False, "BIAS": False, "SAME": False}
SLICED |= {"ACTIVATION": "identity"}
MAIN: dict[str, tuple[Variant, ...]] = {
    "lowbit.forward": ({"BITS": 8, "RAISED": 128}, {"BITS": 1, "RAISED": 1}),
}
OTHERS: dict[str, tuple[Variant, ...]] = {
    "bottleneck.forward": ({"PACKED": True}, SLICED),
    "bottleneck.backward": ({"PACKED": True}, SLICED),
    "bottleneck.outer": ({"PACKED": True}, {"DIM": 2560, "SLICES": 2}),
    "fusion.score": ({"SCORES": False},),
    "fusion.mix": ({"SCORES": False},),
    "logmel.spectrum": ({BESIDE: "logmel.scale"},),
    "lowbit.forward": ({"BITS": 8, "RAISED": 128, "PACKED": True},),
}
OTHERS_ON = 90
CONSTANTS = {
    "DIM": 1280,
    "OUT": 1280,
    "SLICES": 1,
    "ACTIVATION": "gelu",
    "NORM": True,
    "BIAS": True,
    "SUMS": True,
    "CENTRED": True,
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
    "TILES": 188,
    "BLOCK_TILES": 256,
    "BLOCK": logmel_launch.BLOCK,
}
TYPES = {
    **dict.fromkeys(("slots", "offsets"), "*i32"),
    **dict.fromkeys(("frames", "rows", "samples"), "i32"),
    **dict.fromkeys(("scale", "epsilon", "floor", "span"), "fp32"),
    **dict.fromkeys(("down_sum", "down_bias", "up_bias", "bias_out", "sum_out"), "*fp32"),
    **dict.fromkeys(("means", "mean_out", "values", "loudest_in"), "*fp32"),
    **dict.fromkeys(("reading_bias", "direct", "constant", "value_bias"), "*fp32"),
    **dict.fromkeys(("score_out", "score_in", "share_out"), "*fp32"),
    **dict.fromkeys(("conv", "conv_bias"), "*fp32"),
    **dict.fromkeys(("inner_weight", "inner_bias"), "*fp32"),
    **dict.fromkeys(("down_scale", "down_offset", "up_scale", "up_offset", "norm_weight"), "*fp32"),
    **dict.fromkeys(("waves", "cosines", "sines", "filters", "loudest_out"), "*fp32"),
    "lengths": "*i64",
}
TENSORS = {None: "*bf16", "float32": "*fp32"}  # by the type of states that a row is for
# On the cores that tiles of so many frames have instructions of their own for.
OWN = {90: ("HGMMA", "wgmma"), 100: ("UTCHMMA", "tcgen05")}
LARGE = 64
LEAST_SHARED = 99 << 10  # bytes of shared memory that a program can have
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
IN_FLOAT32 = ("bottleneck.outer", "logmel.spectrum")  # what they write


def main() -> int:
    """Compile and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="+", type=int, default=[80, 90, 100])
    parser.add_argument("--plan", default="default")
    parser.add_argument("--kernels", nargs="+", choices=PLANNED, default=PLANNED)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--plain", action="store_true", help="no other ways of launching")
    args = parser.parse_args()
    begun = time.monotonic()
    print(f"triton {triton.__version__}, bfloat16, {CONSTANTS['DIM']} values")
    print("| sm | kernel | width | rows | tile | registers | stack | spills | tensor cores | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    good = True
    rows = [row for row in read_plan(args.plan) if row.kernel in args.kernels]
    wanted = [
        (row, arch, variant)
        for arch in args.arch
        for row in rows
        for variant in variants(row, arch, args.plain)
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        found = pool.map(examined, *zip(*wanted, strict=True))
        for (row, arch, variant), (used, fault) in zip(wanted, found, strict=True):
            good &= fault is None
            tiles = row.tiles
            tile = f"{tiles.frames} × {tiles.dim}, {tiles.warps} warps, {tiles.stages} stages"
            tile += f", {tiles.splits} splits" if tiles.splits > 1 else ""
            name = " ".join([row.kernel, *(f"{k}={v}" for k, v in variant.items())])
            name += f" {row.dtype or ''}".rstrip()
            cells = [arch, name, row.width or widest(row), row.rows or "any", tile]
            cells += [used.get(n, "") for n in ("REG", "STACK", "spills", "tensor")]
            cells.append(fault or "")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{len(wanted)} compiled in {time.monotonic() - begun:.0f} s")
    return 0 if good else 1


def variants(row: Row, arch: int, plain: bool = False) -> list[Variant]:
    """The ways in which a row is compiled for an architecture; rows for float32 on Hopper alone.

    ``plain``: the main ones.
    """
    main = MAIN.get(row.kernel, ({},))
    if arch != OTHERS_ON:
        return list(main) if row.dtype is None else []
    if row.dtype is not None or plain:
        return list(main)
    # Triton compiles again for integers that are 1 or multiples of 16, unless told not to.
    params = getattr(KERNELS[row.kernel], "params", ())  # its interpreter has none
    free = [p.name for p in params if TYPES.get(p.name) == "i32" and not p.do_not_specialize]
    special = [dict.fromkeys(free, value) for value in (1, 16)] if free else []
    return [*main, *OTHERS.get(row.kernel, ()), *(main[0] | each for each in special)]


def widest(row: Row) -> int:
    """The widest bottleneck that a row's kernel is for."""
    plain = row.kernel.startswith("bottleneck.")
    return layout.widest(getattr(torch, row.dtype or "bfloat16")) if plain else WIDEST


def compiled(row: Row, arch: int, variant: Variant) -> Any:
    """The kernel of a row, compiled for an architecture (90 = sm_90)."""
    kernel = KERNELS[variant.get(BESIDE, row.kernel)]
    tiles, width = row.tiles, row.width or widest(row)
    wanted = (
        CONSTANTS
        | variant
        | {
            "WIDTH": width,
            "RANK": width // variant.get("SLICES", 1),
            "CHANNELS": width,
            "SPLITS": tiles.splits,
            "BLOCK_FRAMES": tiles.frames,
            "BLOCK_DIM": tiles.dim,
        }
    )
    names = kernel.arg_names
    multiples = [n for n in names if n in variant and TYPES.get(n) == "i32" and variant[n] > 1]
    wanted = {n: value for n, value in wanted.items() if n in names and n not in multiples}
    types = TYPES | ({"out": "*fp32"} if row.kernel in IN_FLOAT32 else {})
    if "BITS" in variant:
        types |= dict.fromkeys(("down", "up"), "*i8" if variant["BITS"] == 8 else "*u8")
    states = TENSORS[row.dtype]
    signature = {n: "constexpr" if n in wanted else types.get(n, states) for n in names}
    # Tensors of torch begin at multiples of 16 bytes.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if signature[name].startswith("*") or name in multiples
    }
    constants = {(names.index(n),): value for n, value in wanted.items()}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    options = {} if BESIDE in variant else options
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def usage(row: Row, arch: int, variant: Variant) -> dict[str, int]:
    """Registers, stack, instructions that spill, instructions of tensor cores."""
    kernel = compiled(row, arch, variant)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()

        def dump(option: str) -> str:
            command = [str(tool), option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        found = counted(dump("-res-usage"), dump("-sass"))
    return found | {"shared": kernel.metadata.shared}


def counted(resources: str, code: str) -> dict[str, int]:
    """What :func:`usage` gives, from what the disassembler prints."""
    found = {name: int(n) for name, n in re.findall(r"(REG|STACK):(\d+)", resources)}
    found["spills"] = len(re.findall(r"\b(?:LDL|STL)\b", code))
    for name in ("HGMMA", "UTCHMMA"):
        found[name] = len(re.findall(rf"\b{name}\b", code))
    found["tensor"] = len(re.findall(r"\b(?:HMMA|HGMMA|UTCHMMA)\b", code))
    return found


def faults(row: Row, arch: int) -> list[str]:
    """What is wrong with any variant of a row."""
    found = (examined(row, arch, variant)[1] for variant in variants(row, arch))
    return [fault for fault in found if fault]


def examined(row: Row, arch: int, variant: Variant) -> tuple[dict[str, int], str | None]:
    """What :func:`usage` and :func:`fault_of` give; the compiler may refuse it."""
    try:
        used = usage(row, arch, variant)
    except Exception as error:  # of Triton or its assembler, each of its own kind
        lines = str(error).splitlines() or [""]
        return {}, f"does not compile: {type(error).__name__}: {lines[0]}"
    return used, fault_of(row, arch, used, BESIDE not in variant)


def fault_of(row: Row, arch: int, used: dict[str, int], products: bool = True) -> str | None:
    """What is wrong with the machine code, of a kernel with or without products; None = nothing."""
    if used["STACK"] or used["spills"]:
        return "spills"
    if used["shared"] > SHARED.get(arch, LEAST_SHARED):
        return f"{used['shared']} bytes of shared memory"
    if not products:
        return None
    if not used["tensor"]:
        return "no tensor cores"
    instruction, name = OWN.get(arch, ("tensor", ""))
    if row.tiles.frames >= LARGE and not used[instruction]:
        return f"no {name}"
    return None


if __name__ == "__main__":
    sys.exit(main())
