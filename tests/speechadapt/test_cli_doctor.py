"""``speechadapt doctor``: every operator, its path, and why."""

import pkgutil
from importlib import import_module

import pytest
import torch

import speechadapt_kernels
from speechadapt.cli.main import main
from speechadapt_kernels.catalogue import OPERATORS
from speechadapt_kernels.plan import cpu_plan


def test_no_operator_is_forgotten():
    for module in pkgutil.walk_packages(speechadapt_kernels.__path__, "speechadapt_kernels."):
        if module.name.endswith(".operator"):
            import_module(module.name)
    registered = {
        name.removeprefix("speechadapt::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("speechadapt::")
    }
    assert registered == {operator.name for operator in OPERATORS}


@pytest.mark.parametrize(
    ("asked", "interpreted", "expected"),
    [
        ("auto", "0", ["log_mel              torch    float32: no GPU"]),
        ("torch", "0", ["fusion               torch    float32, float16, bfloat16: SPEECHADAPT"]),
        ("triton", "0", ["bottleneck           refused  float32, float16, bfloat16: SPEECHADAPT_"]),
        (
            "triton",
            "1",
            [
                "bottleneck           triton   float32, float16: SPEECHADAPT_KERNELS=triton, plan",
                "bottleneck           refused  bfloat16: SPEECHADAPT_KERNELS=triton: its interp",
            ],
        ),
    ],
)
def test_path_and_reason(asked, interpreted, expected, monkeypatch, capsys):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", asked)
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__}" in out and f"SPEECHADAPT_KERNELS={asked}" in out
    for line in expected:
        assert line in out
    assert all(operator.name in out for operator in OPERATORS)
    assert f"one after the other from {cpu_plan().apart_from_bytes / 1e6:.1f} MB" in out
    assert f"blocks of {cpu_plan().block_bytes / 1e6:.1f} MB" in out


def test_what_cannot_be_is_told(monkeypatch, capsys):
    assert main(["doctor", "--device", "gpu"]) == 2
    assert "device 'gpu' is unknown" in capsys.readouterr().err
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "fast")
    assert main(["doctor"]) == 2
    assert "expected auto, triton, torch" in capsys.readouterr().err
