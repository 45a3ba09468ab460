"""Which path an operator takes: Triton on a GPU its kernels were checked on, torch elsewhere, or as
the environment says.

Compilers for GPUs have miscompiled kernels like these, so a GPU nobody has run their tests on is
given torch unless Triton is asked for.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from speechadapt_kernels.plan import measured, plan_name

VARIABLE = "SPEECHADAPT_KERNELS"
CHOICES = ("auto", "triton", "torch")


def choice() -> str:
    """What the environment asks for.

    Raises:
        ValueError: It is none of :data:`CHOICES`.
    """
    value = os.environ.get(VARIABLE, "auto")
    if value not in CHOICES:
        raise ValueError(f"{VARIABLE}={value}: expected {', '.join(CHOICES)}")
    return value


def uses_triton(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether operators on such a tensor run as Triton kernels.

    Raises:
        ValueError: The environment asks for Triton where it cannot run.
    """
    wanted = choice()
    if wanted == "torch" or (wanted == "auto" and device.type != "cuda"):
        return False  # before anything is looked up: asked at every call
    obstacle = why_not(device, dtype)
    if wanted == "triton" and obstacle and device.type != "meta":
        raise ValueError(f"{VARIABLE}=triton: {obstacle}")
    if wanted == "auto":
        return obstacle is None and measured(device)
    return obstacle is None


def runs_plain(x: Tensor) -> bool:
    """Whether torch itself computes with ``x`` here and now, and keeps the way back.

    Then operators need not be called as such, which takes longer than the sums of a few frames. Who
    only looks on is shown the operator, whole.

    Raises:
        ValueError: As :func:`uses_triton`.
    """
    return not is_traced(x) and not uses_triton(x.device, x.dtype)


def is_traced(x: Tensor) -> bool:
    """Whether nothing is computed yet: somebody compiles or traces, or the tensor has no values."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or x.is_meta
        or isinstance(x, FakeTensor)
        or torch._C._len_torch_dispatch_stack() > 0
    )


def transformed() -> bool:
    """Whether a transform of ``torch.func`` or derivatives forwards are on: they take nothing that
    is written into another tensor."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def learns(*tensors: Tensor | None) -> bool:
    """Whether derivatives have to find their way, to any of them or by a transform."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return transformed()


def explain(device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The path operators take on such a tensor, ``triton`` or ``torch``, and why, in words.

    Raises:
        ValueError: As :func:`uses_triton`.
    """
    wanted, obstacle = choice(), why_not(device, dtype)
    plan = f"plan {plan_name(device)}"
    if uses_triton(device, dtype):
        asked = f"{VARIABLE}=triton, {plan}" if wanted == "triton" else plan
        return "triton", asked if device.type == "cuda" else f"{asked}, interpreted"
    if wanted == "torch":
        return "torch", f"{VARIABLE}=torch"
    if obstacle or device.type != "cuda":
        return "torch", obstacle or "Triton's interpreter is for tests"
    return "torch", (
        f"the kernels have not been checked on such a GPU; {VARIABLE}=triton takes them"
    )


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps Triton from such a tensor, in words; None = nothing."""
    if not _has_triton():
        return "triton is not installed (pip install triton)"
    if dtype == torch.float64:
        return "its kernels compute in float32 at most"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
        return None
    if _interpreting():
        return "its interpreter cannot compute in bfloat16" if dtype == torch.bfloat16 else None
    return f"no GPU: the tensor is on {device.type}"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreting() -> bool:
    """Triton's own interpreter, for tests without a GPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
