"""The benchmark of operators: every case is right, and one that is wrong is not timed."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "kernels/bench"))
from cases import CASES, MODELS, Shape
from floors import H200, Work
from run import measured

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_is_right(name, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    problem = CASES[name](Shape("whisper-base", 2, 3), CPU, torch.float32)
    error, seconds = measured(problem, CPU, torch.float32, rounds=1, compiles=False)
    assert error < 1e-5
    assert list(seconds)[:2] == ["fused", "eager"]
    for peer in ("eager", *problem.systems):  # what it is compared with does the same
        if peer != "layer alone" and "bit" not in name:
            inputs = problem.make(0)
            torch.testing.assert_close(
                problem.found(problem.systems[peer](*inputs)).double(),
                problem.wanted(*inputs),
                rtol=1e-3,
                atol=1e-4,
            )


def test_what_is_wrong_is_not_timed():
    problem = CASES["bottleneck"](Shape("whisper-base", 1, 3), CPU, torch.float32)
    right = problem.systems["fused"]
    problem.systems["fused"] = lambda x: right(x) + 1e-3
    error, seconds = measured(problem, CPU, torch.float32, rounds=1, compiles=False)
    assert error > 1e-5 and not seconds


def test_floors_are_those_of_the_formulas():
    assert Work(4_300_000, 1).floor(H200) == pytest.approx(1e-6)
    assert Work(1, 790_000_000).floor(H200) == pytest.approx(1e-6)
    assert Work(1, 1, 750, 114_688).floor(H200) == pytest.approx(15.6e-6, rel=0.01)
    assert Work(1, 1, 4, 114_688).floor(H200) == pytest.approx(0.9e-6, rel=0.01)


def test_shapes_are_those_of_the_models():
    assert {(dim, width) for dim, width, _ in MODELS.values()} == {(512, 32), (768, 64), (1280, 64)}
