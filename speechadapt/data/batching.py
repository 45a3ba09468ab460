"""Batches of utterances of similar length, the same on every run with the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def bucketed_batches(
    seconds: Sequence[float], batch_seconds: float, seed: int, epoch: int
) -> list[list[int]]:
    """One epoch of batches, each as long as ``batch_seconds`` once padded.

    Utterances are sorted by length with a little noise, so that neighbours pad little and yet
    differ between epochs; the batches are then shuffled.

    Args:
        seconds: Length of each utterance as the model will see it.
        batch_seconds: Upper bound of count x longest; a longer utterance is a batch of its own.
        seed: Of the run.
        epoch: From 0.

    Returns:
        Lists of indices; every utterance is in exactly one.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = sorted(range(len(seconds)), key=lambda i: seconds[i] * rng.uniform(0.9, 1.1))
    batches: list[list[int]] = []
    longest = 0.0
    for index in order:
        longest = max(longest, seconds[index])
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = seconds[index]
    rng.shuffle(batches)
    return batches


def batch_stream(seconds: Sequence[float], batch_seconds: float, seed: int) -> Iterator[list[int]]:
    """Batches without end, epoch after epoch."""
    epoch = 0
    while True:
        yield from bucketed_batches(seconds, batch_seconds, seed, epoch)
        epoch += 1
