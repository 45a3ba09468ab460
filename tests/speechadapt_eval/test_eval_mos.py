"""DNSMOS against speechmos itself, and what gets no score."""

import csv
import importlib.metadata
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from speechadapt_eval import EvalError
from speechadapt_eval.audio.dnsmos import Dnsmos, log_mel
from speechadapt_eval.audio.mos import Mos, predict_mos, summarise
from speechadapt_eval.audio.sources import find_sources

RATE = 16_000


def voice(seconds, noise=0.0):
    """Syllables of a buzzing voice that glides, and noise that is the same everywhere."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.6 * t)) / RATE
    buzz = sum(np.sin(k * phase + k * k) / k for k in range(1, 40))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1) * (np.sin(2 * np.pi * 0.31 * t) > -0.6)
    hiss = np.sin(1e5 * np.sin(np.arange(len(t)) * 12.9898))  # no generator's version matters
    return 0.08 * buzz * syllables + noise * hiss


@pytest.fixture(scope="module")
def dnsmos():
    return Dnsmos()


# What speechmos 0.0.1.1 (librosa 0.11.0, onnxruntime 1.31.1) says:
# from speechmos import dnsmos; dnsmos.run(voice(seconds, noise), 16000)
FIXTURES = [
    (4.0, 0.0, {}, 7),
]


def close(scores, expected, tolerance=1e-4):
    for ours, theirs in (("sig", "sig"), ("bak", "bak"), ("ovrl", "ovrl"), ("p808", "p808")):
        assert getattr(scores, ours) == pytest.approx(expected[f"{theirs}_mos"], abs=tolerance)
