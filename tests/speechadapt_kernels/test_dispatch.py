"""Which path operators take, and why not another."""

import pytest
import torch
from operating import DEVICE

from speechadapt_kernels.dispatch import uses_triton, why_not
from speechadapt_kernels.plan import measured

CPU = torch.device("cpu")


def test_torch_unless_the_kernels_were_checked_there(monkeypatch):
    monkeypatch.delenv("SPEECHADAPT_KERNELS", raising=False)
    assert not uses_triton(CPU, torch.float32)
    assert not measured(CPU)
    assert uses_triton(DEVICE, torch.float32) == measured(DEVICE)


def test_what_is_asked_for_is_taken_or_told(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    assert uses_triton(DEVICE, torch.float32)
    with pytest.raises(ValueError, match="compute in float32 at most"):
        uses_triton(DEVICE, torch.float64)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="no GPU: the tensor is on cpu"):
        uses_triton(CPU, torch.float32)
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    assert not uses_triton(CPU, torch.float32)
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "fast")
    with pytest.raises(ValueError, match="SPEECHADAPT_KERNELS=fast: expected auto, triton, torch"):
        uses_triton(CPU, torch.float32)


def test_the_interpreter_has_no_bfloat16(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_not(CPU, torch.float16) is None
    assert "bfloat16" in why_not(CPU, torch.bfloat16)
