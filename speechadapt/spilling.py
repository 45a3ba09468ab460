"""Adapters that are seldom used, kept where they cost no working memory."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import safetensors.torch
from torch import Tensor

from speechadapt.adapters.adapter import HEAD, Adapter


def spilled(adapter: Adapter) -> Adapter:
    """The same adapter with its tensors in a mapped file (CPU) or in pinned memory (GPU)."""
    tensors: dict[str, Tensor] = {key: t.detach() for key, t in adapter.named_tensors()}
    if any(tensor.is_cuda for tensor in tensors.values()):
        tensors = {key: tensor.cpu().pin_memory() for key, tensor in tensors.items()}
    else:
        tensors = _mapped(tensors)
    sites: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        site, _, part = key.partition("/")
        sites.setdefault(site, {})[part] = tensor
    head = adapter.head and type(adapter.head)(adapter.head.config, sites.pop(HEAD))
    away = Adapter(adapter.name, adapter.config, adapter.family, sites, adapter.info, head)
    away.bits, away.spilled = adapter.bits, True
    return away


def _mapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on pages of a file that has no name any more: it goes when they go."""
    with tempfile.TemporaryDirectory(prefix="speechadapt-") as folder:
        path = Path(folder) / "spilled.safetensors"
        safetensors.torch.save_file({k: t.contiguous() for k, t in tensors.items()}, path)
        return safetensors.torch.load_file(path)


def give_back() -> None:
    """Return freed memory to the system: the C library keeps blocks as small as these tensors."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
