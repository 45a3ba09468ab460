"""Time and memory of ``speechadapt-eval wer`` on a large test set.

    python eval/bench/scale.py --utterances 100000

Writes a synthetic set (utterances of 1 to 20 words, Zipf's law over 50,000 words of Cyrillic
letters, a fifth of the words wrong, 500 speakers) and prints wall and CPU seconds and peak memory
of the command, each time in a fresh process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "speechadapt_eval.cli.main", "wer", "ref", "hyp"]
RUNS = {
    "words, 10,000 replicates over speakers": ["--utt2spk", "utt2spk"],
    "words, 10,000 replicates over utterances": [],
    "characters": ["--utt2spk", "utt2spk", "--unit", "char"],
    "Kaldi's split": ["--utt2spk", "utt2spk", "--split", "kaldi"],
    "all tables": [
        "--utt2spk", "utt2spk", "--field", "duration", "utt2dur", "--by", "duration", "--out", "out"
    ],
}  # fmt: skip


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = write_set(Path(folder), args.utterances)
        print(f"{args.utterances} utterances, {words} words, {os.cpu_count()} cores")
        print(f"{'':42} wall s   CPU s  peak MiB")
        for name, options in RUNS.items():
            wall, cpu, peak = measure([*COMMAND, *options], folder)
            print(f"{name:42} {wall:6.1f}  {cpu:6.1f}  {peak:8.0f}")


def write_set(folder: Path, utterances: int) -> int:
    """Write ref, hyp, utt2spk and utt2dur; return the number of reference words."""
    rng = np.random.default_rng(0)
    letters = np.array(list("абвгдежзіклмнопрстуўхцчшыэюя"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, 50_000)]
    lengths = rng.integers(1, 21, utterances)
    shares = 1 / np.arange(1, len(words) + 1)
    chosen = rng.choice(len(words), lengths.sum(), p=shares / shares.sum())
    draws = rng.random(len(chosen))
    others = rng.integers(0, len(words), len(chosen))
    start = 0
    with ExitStack() as files:
        tables = [
            files.enter_context((folder / name).open("w", encoding="utf-8"))
            for name in ("ref", "hyp", "utt2spk", "utt2dur")
        ]
        for number, length in enumerate(lengths):
            name = f"s{number % 500:03d}-{number:07d}"
            ref, hyp = [], []
            for i in range(start, start + length):
                ref.append(words[chosen[i]])
                if draws[i] < 0.06:  # left out
                    continue
                hyp.append(words[others[i]] if draws[i] < 0.15 else ref[-1])
                if draws[i] > 0.95:
                    hyp.append(words[others[i]])
            start += length
            values = (" ".join(ref).capitalize() + ".", " ".join(hyp), name[:4], length / 2.5)
            for table, value in zip(tables, values, strict=True):
                table.write(f"{name} {value}\n")
    return int(lengths.sum())


def measure(command: list[str], folder: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident memory (MiB) of a process and what it runs."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
