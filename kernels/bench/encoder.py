"""A whole Whisper encoder on a GPU: frozen, with adapters in torch, and with fused operators.

    python kernels/bench/encoder.py --models whisper-base whisper-large-v3 --batches 1 8

Random weights of the models' sizes, bfloat16, one bottleneck adapter at the output of every layer,
everything in CUDA graphs. Prints a table: each as a multiple of the frozen encoder (bars: fused
1.03 from batch 8 on, 1.10 for one utterance at 50 positions), and sixteen adapters in one batch as
a multiple of one (bar: 1.02). Fused and torch must give the same to rounding, and each graph what
its launches give, before anything is timed. On a CPU, in float32, as they are launched: to see that
the script runs (``--models tiny``). ``--predict`` measures nothing: what fused adapters would cost
on an H200 were every kernel as fast as it could be, or took 2 µs of a graph.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import bottlenecks
import torch
from floors import H200, Work
from problems import MODELS, Shape
from timing import Turn, apart, captured, in_turn, on_cpu
from transformers import WhisperConfig, WhisperForConditionalGeneration

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import Call, running
from speechadapt.features import Features
from speechadapt.model import SpeechModel
from speechadapt.route import Route
from speechadapt_kernels.dispatch import VARIABLE

SIZES = {  # dim, layers, mel bins, bottleneck
    "tiny": (64, 2, 80, 16),
    "whisper-base": (512, 6, 80, 32),
    "whisper-small": (768, 12, 80, 64),
    "whisper-large-v3": (1280, 32, 128, 64),
}
ADAPTERS = 16
LAUNCHED = 2e-6  # seconds that any kernel of a graph takes, assumed
FUSED = "triton"  # the path of fused operators
MOST = 2e-2  # between the two paths, over all layers, in bfloat16
COLUMNS = ("encoder", "batch", "positions", "frozen (ms)", "in torch", "fused", "16 adapters")


def main() -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES)[1:])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--frames", nargs="+", type=int, default=[50, 1500])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--predict", action="store_true", help="floors of an H200 alone")
    args = parser.parse_args()
    if args.predict and "tiny" in args.models:
        parser.error("--predict is for models that there are, not for tiny")
    if args.predict:
        print("| encoder | batch | positions | frozen (ms) | fused |\n|---|---|---|---|---|")
        for name in args.models:
            for batch in args.batches:
                for frames in args.frames:
                    layer, adapter = predicted(name, batch, frames)
                    cells = f"{1e3 * SIZES[name][1] * layer:.3f} | {1 + adapter / layer:.3f}"
                    print(f"| {name} | {batch} | {frames} | {cells} |")
        return 0
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    good = True
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for name in args.models:
        model = loaded(name, device, dtype)
        for batch in args.batches:
            for frames in args.frames:
                good &= compared(name, model, batch, frames, args.rounds, device)
    return 0 if good else 1


def predicted(name: str, batch: int, frames: int) -> tuple[float, float]:
    """Least seconds of a layer, kernel by kernel as transformers launches them, and of its adapter.

    In bfloat16; attention is one kernel.
    """
    dim, _, _, width = SIZES[name]
    rows = batch * frames
    states = 2 * rows * dim  # bytes

    def linear(read: int, made: int) -> Work:
        return Work(2 * (rows * (read + made) + read * made), 2 * rows * read * made)

    kernels = [
        *[Work(2 * states, 0)] * 2,  # norms
        *[linear(dim, dim)] * 4,
        Work(4 * states, 4 * batch * frames**2 * dim),
        linear(dim, 4 * dim),
        Work(8 * states, 0),  # GELU
        linear(4 * dim, dim),
        *[Work(3 * states, 0)] * 2,  # sums with the residual
    ]
    model = next(each for each in MODELS if each.startswith(name))
    shape = Shape(model, batch, frames, width)
    adapter = bottlenecks.one(shape, torch.device("cpu"), torch.bfloat16).work
    least = [max(work.floor(H200), LAUNCHED) for work in (*kernels, adapter)]
    return sum(least[:-1]), least[-1]


def loaded(name: str, device: torch.device, dtype: torch.dtype) -> SpeechModel[WhisperBackbone]:
    """A model of that size with its adapters."""
    dim, layers, bins, width = SIZES[name]
    config = WhisperConfig(
        d_model=dim,
        encoder_layers=layers,
        encoder_attention_heads=dim // 64,
        encoder_ffn_dim=4 * dim,
        decoder_layers=1,
        decoder_attention_heads=dim // 64,
        decoder_ffn_dim=dim,
        num_mel_bins=bins,
    )
    torch.manual_seed(0)
    with device:  # a billion random numbers take a CPU long
        whisper = WhisperForConditionalGeneration(config).to(device, dtype)
    whisper.eval().requires_grad_(False)
    # An encoder needs no tokenizer.
    checkpoint: Any = SimpleNamespace(
        model=whisper, name=name, fingerprint="random", tokenizer=None, generation=None
    )
    model = SpeechModel(WhisperBackbone(checkpoint))
    adapter = BottleneckConfig(bottleneck=width, points=("out",))
    sites = [site for site in model.backbone.sites.values() if site.name.startswith("encoder")]
    for index in range(ADAPTERS):
        made = Adapter.fresh(str(index), adapter, family_of(adapter), sites, AdapterInfo(), index)
        made.to(device, dtype)
        for _, tensor in made.named_tensors():
            tensor.data.add_(0.01 * torch.randn_like(tensor))
        model.bank.add(made)
    return model


@torch.inference_mode()
def compared(
    name: str,
    model: SpeechModel[WhisperBackbone],
    batch: int,
    frames: int,
    rounds: int,
    device: torch.device,
) -> bool:
    """Print a line for a size; whether both paths agree."""
    bins = SIZES[name][2]
    mel = Features(
        torch.randn(batch, bins, 2 * frames, device=device),
        torch.full((batch,), 2 * frames, device=device),
    )
    one: list[Route] = ["0"] * batch
    each: list[Route] = [str(index % ADAPTERS) for index in range(batch)]
    systems = {
        "frozen": ("torch", [None] * batch),
        "in torch": ("torch", one),
        "fused": (FUSED, one),
        "fused, 16 adapters": (FUSED, each),
    }
    turns: dict[str, Turn] = {}
    states = {}
    calls = []  # hold the slots and stacked weights that graphs read as long as they are replayed
    for system, (path, routes) in systems.items():
        calls.append(model.bank.call(routes, model.backbone.key_lengths(mel)))

        def encode(call: Call = calls[-1], path: str = path) -> torch.Tensor:
            with running(call), taking(path):
                return model.backbone.encode(mel).states

        states[system] = encode()
        turns[system] = (captured if device.type == "cuda" else on_cpu)(encode, [()])
    difference = apart(states["fused"], states["in torch"])
    if not difference < MOST:
        print(f"| {name} | {batch} | {frames} | WRONG: the paths are {difference:.1e} apart |")
        return False
    seconds = {key: statistics.median(taken) for key, taken in in_turn(turns, rounds).items()}
    frozen, fused = seconds["frozen"], seconds["fused"]
    cells = (
        f"{1e3 * frozen:.3f}",
        f"{seconds['in torch'] / frozen:.3f}",
        f"{fused / frozen:.3f}",
        f"{seconds['fused, 16 adapters'] / fused:.3f}",
    )
    print(f"| {name} | {batch} | {frames} | {' | '.join(cells)} |", flush=True)
    return True


@contextmanager
def taking(path: str) -> Iterator[None]:
    """Operators take this path."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = path
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


if __name__ == "__main__":
    sys.exit(main())
