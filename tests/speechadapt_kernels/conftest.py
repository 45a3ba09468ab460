"""Kernels run on the GPU where there is one, else in the interpreter (``tests/conftest.py``)."""

import pytest
import torch


@pytest.fixture(params=["triton", "torch"])
def path(request, monkeypatch):
    """Either path of an operator."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", request.param)
    return request.param


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel does not write is NaN."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _poison(getattr(torch, name)))
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", _poison(plain))


def _poison(make):
    def made(*args, **settings):
        tensor = make(*args, **settings)
        if tensor.is_floating_point() and tensor.device.type != "meta":
            tensor.fill_(float("nan"))
        return tensor

    return made
