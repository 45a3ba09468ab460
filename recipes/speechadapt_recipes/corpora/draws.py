"""Random numbers that are a function of a name alone: the same on every machine, in any order."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_of(name: str) -> np.random.Generator:
    """A generator for what is called ``name``."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed))
