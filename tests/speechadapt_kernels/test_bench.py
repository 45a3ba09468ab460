"""The benchmark of operators: every case is right, and one that is wrong is not timed."""

import sys
from pathlib import Path

import pytest
import torch
from operating import DEVICE

sys.path.append(str(Path(__file__).parents[2] / "kernels/bench"))
import cpu
import encoder
import report
import run
from cases import CASES
from cpu import threshold
from floors import H200, Work, cost
from problems import MODELS, Shape
from run import checked, difference, measured, right

from speechadapt_kernels.bottleneck import launch
from speechadapt_kernels.plan import Tiles, trying

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_is_right(name, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    problem = CASES[name](Shape("whisper-base", 3, 3), CPU, torch.float32)
    error, seconds = measured(problem, CPU, rounds=1, compiles=False)
    assert error < 1e-5
    assert list(seconds)[:2] == ["fused", "eager"]
    inputs = problem.make(0)
    wanted = problem.wanted(*inputs)
    for name_of, system in problem.systems.items():  # what it is compared with does the same
        if name_of != "layer alone" and "bit" not in name:
            found = problem.found(system(*inputs))
            for mine, theirs in zip(found, wanted, strict=True):
                assert mine.shape == theirs.shape
                assert difference(mine, theirs) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_one_wrong_tensor_of_a_result_is_seen(name, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    problem = CASES[name](Shape("whisper-base", 3, 3), CPU, torch.float32)
    found = problem.found
    count = len(found(problem.systems["fused"](*problem.make(0))))
    assert count == {"bottleneck, trained": 7, "fusion of 8, trained": 11, "conformer": 2}.get(
        name, 1
    )
    for place in range(count):

        def worse(made, place=place):
            tensors = list(found(made))
            tensors[place] = tensors[place] * 1.1
            return tuple(tensors)

        problem.found = worse
        assert not right(problem, checked(problem))


def test_all_of_a_small_batch_is_compared_and_some_of_a_large_one():
    assert Shape("whisper-base", 8, 50).places == list(range(8))
    assert Shape("whisper-base", 32, 1500).places == [0, 16, 31]
    assert Shape("whisper-base", 2, 3000).places == [0, 1]


def test_a_kernel_that_keeps_the_last_of_a_sum_alone_is_refused(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    block, frames = 64, 70
    problem = CASES["bottleneck, trained"](Shape("whisper-base", 1, frames), DEVICE, torch.float32)
    real = launch.kernels.outer_kernel

    class Overwriting:
        """The kernel, as if each block of frames overwrote the product of those before."""

        def __getitem__(self, grid):
            def launched(left, *args, **settings):
                last = left.clone()
                last[:block] = 0
                return real[grid](last, *args, **settings)

            return launched

    tiles = Tiles(block, 128, 4, 2)
    with (
        trying("bottleneck.forward", tiles),
        trying("bottleneck.backward", tiles),
        trying("bottleneck.outer", tiles),
    ):
        assert right(problem, checked(problem))
        monkeypatch.setattr(launch.kernels, "outer_kernel", Overwriting())
        assert not right(problem, checked(problem))


def test_what_is_wrong_is_not_timed():
    problem = CASES["bottleneck"](Shape("whisper-base", 1, 3), CPU, torch.float32)
    ours = problem.systems["fused"]
    problem.systems["fused"] = lambda x: ours(x) + 1e-3
    error, seconds = measured(problem, CPU, rounds=1, compiles=False)
    assert error > 1e-5 and not seconds


def test_floors_are_those_of_the_formulas():
    assert Work(4_300_000, 1).floor(H200) == pytest.approx(1e-6)
    assert Work(1, 790_000_000).floor(H200) == pytest.approx(1e-6)
    assert Work(1, 1, 750, 114_688).floor(H200) == pytest.approx(15.6e-6, rel=0.01)
    assert Work(1, 1, 4, 114_688).floor(H200) == pytest.approx(0.9e-6, rel=0.01)
    assert cost(torch.bfloat16) == 1 and cost(torch.float32) == 6


def test_shapes_are_those_of_the_models():
    assert {(dim, width) for dim, width, _ in MODELS.values()} == {(512, 32), (768, 64), (1280, 64)}


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Run the command on a tiny size; its exit status, and the table that it wrote."""

    def call(*options):
        table = tmp_path / "bench.csv"
        command = ["run.py", "--device", "cpu", "--models", "whisper-base", "--batches", "1"]
        command += ["--frames", "3", "--rounds", "1", "--out", str(table), *options]
        monkeypatch.setattr(sys, "argv", command)
        return run.main(), table

    return call


def test_report(measure, tmp_path, capsys, monkeypatch):
    status, table = measure("--cases", "conformer", "log-mel")
    assert status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bench.csv"]
    cases, floors, title = report.read(table)
    times = cases["conformer"]["whisper-base 1 × 3"]
    assert set(times) == {"fused", "eager"} and min(times.values()) > 0
    assert floors["conformer", "whisper-base 1 × 3"] > 0
    assert title.startswith("CPU, torch ") and ", commit " in title
    assert "| whisper-base 1 × 3 |" in "\n".join(report.markdown(cases, floors, title))
    picture = tmp_path / "bench.svg"
    monkeypatch.setattr(sys, "argv", ["report.py", str(table), "--picture", str(picture)])
    assert report.main() == 0
    assert picture.read_text().count('<g id="axes_') >= 2
    table_of_all = capsys.readouterr().out
    assert "| | | whisper-base 1 × 3 |" in table_of_all
    assert all(f"| {case} | eager | " in table_of_all for case in ("conformer", "log-mel"))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "none.csv")])
    assert report.main() == 2
    assert "none.csv: No such file" in capsys.readouterr().err


def test_a_case_that_dies_does_not_keep_others_from_running(measure, capsys, monkeypatch):
    def dies(*_args):
        raise RuntimeError("an illegal memory access\nand more")

    monkeypatch.setitem(CASES, "bottleneck", dies)
    status, table = measure("--cases", "bottleneck", "conformer")
    assert status == 1
    assert "FAILED: RuntimeError: an illegal memory access\n" in capsys.readouterr().out
    assert set(report.read(table)[0]) == {"conformer"}


def test_no_case_is_begun_when_time_is_up(measure, capsys):
    status, table = measure("--cases", "conformer", "log-mel", "--seconds", "1e-9")
    assert status == 0 and not report.read(table)[0]
    assert "out of time: 2 of 2 cases not measured" in capsys.readouterr().out


def test_encoders(monkeypatch, capsys):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "auto")
    command = ["encoder.py", "--device", "cpu", "--models", "tiny", "--batches", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--frames", "4", "--rounds", "1"])
    monkeypatch.setattr(encoder, "FUSED", "torch" if DEVICE.type == "cuda" else "triton")
    assert encoder.main() == 0
    assert "| tiny | 2 | 4 |" in capsys.readouterr().out
    monkeypatch.setattr(encoder, "MOST", 0.0)
    assert encoder.main() == 1
    assert "WRONG: the paths are" in capsys.readouterr().out


def test_the_size_from_which_apart_is_better():
    sizes = [1, 2, 4, 8]
    assert threshold(sizes, [0.5, 0.1, -0.2, -0.6]) == 4
    assert threshold(sizes, [0.5, -0.1, 0.2, -0.6]) == 8
    assert threshold(sizes, [0.5, 0.1, 0.2, 0.6]) == 9
    assert threshold(sizes, [-0.1, -0.1, -0.2, -0.6]) == 1
    assert set(cpu.measured(64, 8, 2, 3, 1, False)) == {"together", "apart"}


def test_an_adapter_takes_little_of_a_predicted_encoder():
    for name in list(encoder.SIZES)[1:]:
        for batch, frames in ((1, 50), (8, 1500)):
            layer, adapter = encoder.predicted(name, batch, frames)
            assert encoder.LAUNCHED <= adapter < 0.15 * layer
