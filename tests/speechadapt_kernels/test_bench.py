"""The benchmark of operators: every case is right, and one that is wrong is not timed."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "kernels/bench"))
import cpu
import report
import run
from cases import CASES, MODELS, Shape
from cpu import threshold
from floors import H200, Work
from run import measured
from tune import CASE_OF, candidates, ranked

from speechadapt_kernels.plan import KERNELS, Tiles, read_plan, tiles_for, trying

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


def test_tiles_replace_others_only_where_they_are_clearly_faster():
    there = [1.0, 1.1, 0.9, 1.0]
    seconds = {
        "there": there,
        "a little faster": [0.98 * s for s in there],
        "once much faster": [0.1, *there[1:]],
        "faster": [0.9 * s for s in there],
        "fastest": [0.8 * s for s in there],
    }
    assert ranked(seconds, "there") == ["fastest", "faster", "there"]


def test_every_kernel_of_a_plan_has_a_case_and_candidates():
    assert set(CASE_OF) == set(KERNELS) and set(CASE_OF.values()) <= set(CASES)
    for row in read_plan("default"):
        tried = list(candidates(row))
        assert len(tried) == len(set(tried)) > 10


def test_tiles_that_are_tried_hold_for_the_time_being():
    tiles = Tiles(128, 64, 8, 4)
    args = ("fusion.mix", CPU, 64, 1500, (512,))
    before = tiles_for(*args)
    with trying("fusion.mix", tiles):
        assert tiles_for(*args) == tiles
    assert tiles_for(*args) == before


def test_report(tmp_path, capsys, monkeypatch):
    table = tmp_path / "bench.csv"
    command = ["run.py", "--device", "cpu", "--cases", "conformer", "--models", "whisper-base"]
    command += ["--batches", "1", "--frames", "3", "--rounds", "1", "--no-compile"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(table)])
    assert run.main() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bench.csv"]
    cases, floors, title = report.read(table)
    times = cases["conformer"]["whisper-base 1 × 3"]
    assert set(times) == {"fused", "eager"} and min(times.values()) > 0
    assert floors["conformer", "whisper-base 1 × 3"] > 0
    assert title.startswith("CPU, float32, torch ")
    assert "| whisper-base 1 × 3 |" in "\n".join(report.markdown(cases, floors, title))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "none.csv")])
    assert report.main() == 2
    assert "none.csv: No such file" in capsys.readouterr().err


def test_the_size_from_which_apart_is_better():
    sizes = [1, 2, 4, 8]
    assert threshold(sizes, [0.5, 0.1, -0.2, -0.6]) == 4
    assert threshold(sizes, [0.5, -0.1, 0.2, -0.6]) == 8
    assert threshold(sizes, [0.5, 0.1, 0.2, 0.6]) == 9
    assert threshold(sizes, [-0.1, -0.1, -0.2, -0.6]) == 1
    assert set(cpu.measured(64, 8, 2, 3, 1, False)) == {"together", "apart"}
