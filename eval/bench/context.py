"""Encoder time at short context against 30 s, interleaved in one process.

    python eval/bench/context.py data/be/test --adapter exp/be/adapter

Prints seconds of encoder time per clip at each trailing silence, and as a ratio to 30 s.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import speechadapt
from speechadapt.audio import load_audio
from speechadapt.data import load_utterances
from speechadapt.route import Route


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data dir or manifest")
    parser.add_argument("--base", default="openai/whisper-base")
    parser.add_argument("--adapter", help="adapter folder; without it the frozen base is timed")
    parser.add_argument("--silence", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.56])
    parser.add_argument("--clips", type=int, default=20)
    args = parser.parse_args()
    model = speechadapt.load(args.base, [args.adapter] if args.adapter else [])
    routes: list[Route] = [adapter.name for adapter in model.bank] or [None]
    utterances = load_utterances(args.data)[: args.clips]
    waves = [load_audio(u.audio, u.start, u.end) for u in utterances]
    contexts: list[float | None] = [None, *args.silence]
    seconds: dict[float | None, list[float]] = {context: [] for context in contexts}
    for context in contexts:
        model.encode(waves[:1], routes, context)  # warm-up
    for wave in waves:
        for context in contexts:  # in turn, so that a busy machine slows all of them alike
            started = time.process_time()
            model.encode([wave], routes, context)
            seconds[context].append(time.process_time() - started)
    full = statistics.mean(seconds[None])
    print(f"{len(waves)} clips, {torch.get_num_threads()} threads, CPU seconds a clip")
    for context, taken in seconds.items():
        mean = statistics.mean(taken)
        name = "30 s" if context is None else f"{context} s of silence"
        print(f"{name:20} {mean:7.4f}  1/{full / mean:.1f}")


if __name__ == "__main__":
    main()
