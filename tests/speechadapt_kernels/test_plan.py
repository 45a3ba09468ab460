"""Plans of kernels: a table that could not work is refused when it is read."""

import pytest
import torch

from speechadapt_kernels.plan import (
    KERNELS,
    CpuPlan,
    parse_cpu_plan,
    parse_plan,
    read_plan,
    rows_at_once,
    runs_apart,
    tiles_for,
    trying_cpu,
)

TILES = {"frames": 16, "dim": 64, "warps": 4, "stages": 2}


def rows(**changes):
    first = {"kernel": KERNELS[0], "width": 64, "tiles": dict(TILES)} | changes
    return [first, *({"kernel": kernel, "tiles": dict(TILES)} for kernel in KERNELS)]


def test_the_first_row_that_fits_is_taken():
    half, single = torch.float16, torch.float32
    plan = parse_plan(rows(tiles=TILES | {"frames": 64}), "mine")
    assert plan[0].fits(KERNELS[0], 64, 5000, half)
    assert not plan[0].fits(KERNELS[0], 65, 1, half)
    assert not plan[0].fits(KERNELS[1], 1, 1, half)
    plan = parse_plan(rows(dtype="float32"), "mine")
    assert plan[0].fits(KERNELS[0], 64, 1, single) and not plan[0].fits(KERNELS[0], 64, 1, half)


def test_the_default_is_a_plan_and_divides_every_width():
    assert read_plan("default")
    for kernel in KERNELS:
        for dim in (64, 192, 384, 512, 768, 1024, 1280, 2048):
            for dtype in (torch.float32, torch.bfloat16):
                tiles = tiles_for(kernel, torch.device("cpu"), 64, 1500, (dim, 64 * 3), dtype)
                assert dim % tiles.dim == 0 and tiles.dim in (32, 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kernel": "bottleneck"}, "row 1: kernel is 'bottleneck', expected one of"),
        ({"tiles": TILES | {"frames": 8}}, "row 1: .* 16 frames and 32 columns at least"),
        ({"tiles": TILES | {"dim": 96}}, "row 1: .* 96 is no power of two"),
        ({"tiles": TILES | {"warps": 0}}, "row 1: warps is 0"),
        ({"tiles": TILES | {"stages": "2"}}, "row 1: stages is '2'"),
        ({"tiles": {"frames": 16}}, "row 1: .*missing"),
        ({"arch": 90}, "row 1: .*arch"),
        ({"width": "64"}, "row 1: width is '64', expected 1 or more"),
        ({"rows": 0}, "row 1: rows is 0, expected 1 or more"),
        ({"tiles": TILES | {"splits": 3}}, "row 1: .* 3 is no power of two"),
        (
            {"kernel": "lowbit.forward", "tiles": TILES | {"splits": 2}},
            "row 1: splits is 2, and lowbit.forward cannot be split",
        ),
        ({"dtype": "bfloat16"}, "row 1: dtype is 'bfloat16', expected float32 or nothing"),
        ({"width": None}, "row 2: a row before it takes all that is for it"),
    ],
)
def test_what_could_not_work_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        parse_plan(rows(**changes), "mine")


def test_a_plan_is_a_list_of_rows():
    for plan in ({"rows": []}, [1], None):
        with pytest.raises(ValueError, match="plan mine: expected a list of rows"):
            parse_plan(plan, "mine")


def test_every_kernel_has_a_row_for_everything():
    with pytest.raises(ValueError, match=r"no row of bottleneck\.forward is for everything"):
        parse_plan(rows()[:1], "mine")


def test_large_batches_on_a_cpu_run_one_adapter_after_the_other():
    small, large = torch.empty(2, 1, 50, 512), torch.empty(16, 1, 1500, 512)
    assert not runs_apart(small) and runs_apart(large)
    assert not runs_apart(large.to("meta"))  # a GPU is better filled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"apart_from_bytes": 0, "block_bytes": 1}', "apart_from_bytes is 0, expected bytes"),
        ('{"apart_from_bytes": 1, "block_bytes": 2.5}', "block_bytes is 2.5, expected bytes"),
        ('{"apart_from_bytes": 1}', "block_bytes"),
        ('{"apart_from_bytes": 1, "block_bytes": 1, "more": 1}', "more"),
        ("[1", "plan cpu"),
    ],
)
def test_a_plan_for_cpus_that_could_not_work_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_cpu_plan(text)


def test_rows_that_are_taken_at_once():
    with trying_cpu(CpuPlan(1, 4096)):
        assert rows_at_once(torch.empty(100, 512)) == 2
        assert rows_at_once(torch.empty(100, 2048)) == 1  # one at least
        assert rows_at_once(torch.empty(100, 512, device="meta")) == 100
