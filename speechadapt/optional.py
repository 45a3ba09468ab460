"""Libraries that are used where they import, and never needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def torchaudio() -> ModuleType | None:
    """torchaudio, or None where it is missing or built for another torch.

    Its wheel links against CUDA: beside a CPU build of torch it is installed and still fails with
    ``OSError`` when imported.
    """
    try:
        return import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):
        return None
