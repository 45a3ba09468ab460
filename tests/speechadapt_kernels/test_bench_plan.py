"""The gate and the tuner of plans: what a row is compiled with, what a fault is, and its sizes."""

import sys
from pathlib import Path

import pytest
import torch
from operating import DEVICE

sys.path.append(str(Path(__file__).parents[2] / "kernels/bench"))
import gate
from cases import CASES
from problems import Shape
from tune import CASES_OF, asks, candidates, ranked, selected, shapes_of

from speechadapt_kernels import plan
from speechadapt_kernels.plan import KERNELS, Row, Tiles, read_plan, tiles_for, trying

CPU = torch.device("cpu")
SOUND = {"REG": 200, "STACK": 0, "spills": 0, "shared": 0, "tensor": 8, "HGMMA": 8, "UTCHMMA": 8}


def row(kernel="bottleneck.forward", frames=64):
    return Row(kernel, Tiles(frames, 64, 4, 2))


@pytest.mark.parametrize(
    ("arch", "frames", "changes", "fault"),
    [
        (90, 64, {}, None),
        (90, 64, {"spills": 1}, "spills"),
        (90, 64, {"STACK": 16}, "spills"),
        (90, 16, {"tensor": 0}, "no tensor cores"),
        (90, 64, {"HGMMA": 0}, "no wgmma"),
        (90, 32, {"HGMMA": 0}, None),
        (100, 64, {"UTCHMMA": 0}, "no tcgen05"),
        (100, 16, {"UTCHMMA": 0}, None),
        (80, 64, {"HGMMA": 0, "UTCHMMA": 0}, None),
        (80, 64, {"shared": 164 << 10}, "167936 bytes of shared memory"),
        (90, 64, {"shared": 164 << 10}, None),
    ],
)
def test_faults_of_machine_code(arch, frames, changes, fault):
    assert gate.fault_of(row(frames=frames), arch, SOUND | changes) == fault


def test_a_kernel_without_products_needs_no_tensor_cores():
    assert gate.fault_of(row(), 90, SOUND | {"tensor": 0}, products=False) is None
    assert gate.fault_of(row(), 90, SOUND | {"spills": 1}, products=False) == "spills"


def test_what_the_disassembler_prints_is_counted():
    code = "/*0*/ LDL.64 R2, [R1] ;\n STL [R1], R2 ;\n HGMMA.64x64x16.F32.BF16 R24 ;\n HMMA.1 R1 ;"
    found = gate.counted(" Function f:\n  REG:168 STACK:16 SHARED:0 LOCAL:0", code)
    wanted = {"REG": 168, "STACK": 16, "spills": 2, "HGMMA": 1, "UTCHMMA": 0, "tensor": 2}
    assert found == wanted


def test_what_the_compiler_refuses_is_a_fault(monkeypatch):
    def refuses(*_args):
        raise TypeError("no such type\nat line 3")

    monkeypatch.setattr(gate, "usage", refuses)
    assert gate.examined(row(), 90, {}) == ({}, "does not compile: TypeError: no such type")


def test_every_way_a_kernel_is_launched_in_is_compiled():
    assert set(gate.KERNELS) - set(KERNELS) == {"logmel.scale"}
    assert gate.variants(row("logmel.spectrum"), 90)[1] == {gate.BESIDE: "logmel.scale"}
    for kernel in KERNELS:
        names = gate.KERNELS[kernel].arg_names
        on_hopper = gate.variants(row(kernel), 90)
        for name, value in (("PACKED", True), ("SCORES", False)):
            assert (name in names) == any(v.get(name) == value for v in on_hopper)
        assert ("SLICES" in names) == any(v.get("SLICES") == 2 for v in on_hopper)
        assert len(gate.variants(row(kernel), 80)) == (2 if kernel == "lowbit.forward" else 1)
        for variant in on_hopper:
            assert set(variant) <= {*names, gate.BESIDE} or "SLICES" in variant
    single = Row("lowbit.forward", Tiles(16, 32, 4, 2), dtype="float32")
    assert [len(gate.variants(single, arch)) for arch in (80, 90, 100)] == [0, 2, 0]


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


def test_every_kernel_of_a_plan_has_cases_and_candidates():
    assert set(CASES_OF) == set(KERNELS)
    assert {name for names in CASES_OF.values() for name in names} <= set(CASES)
    for each in read_plan("default"):
        tried = candidates(each)
        assert len(tried) == len(set(tried)) > 10 and each.tiles not in tried
        first = vars(tried[0]).items()
        assert sum(getattr(each.tiles, name) != value for name, value in first) == 1


def test_every_row_is_tuned_on_sizes_that_take_it():
    rows = read_plan("default")
    for each in rows:
        shapes = list(shapes_of(rows, each))
        assert shapes
        for shape in shapes:
            assert selected(rows, each, shape) is each
    with pytest.raises(ValueError, match="no size that is tried takes"):
        list(shapes_of(rows, row()))


@pytest.mark.parametrize("name", sorted({name for names in CASES_OF.values() for name in names}))
def test_launches_ask_for_what_the_tuner_says(name, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    asked = set()

    class Asked:
        """A row for everything, which notes what it is asked."""

        tiles = Tiles(16, 128, 4, 2)

        def fits(self, kernel, width, rows, _dtype):
            asked.add((kernel, (width, rows)))
            return True

    shape = Shape("whisper-base", 1 if "packed" in name else 2, 3)  # packed ones are cut shorter
    problem = CASES[name](shape, DEVICE, torch.float32)
    monkeypatch.setattr(plan, "_plan", lambda _architecture: (Asked(),))
    problem.systems["fused"](*problem.make(0))
    for kernel in (kernel for kernel, names in CASES_OF.items() if name in names):
        assert {wanted for each, wanted in asked if each == kernel} == {asks(kernel, shape)}


def test_tiles_that_are_tried_hold_for_the_time_being():
    tiles = Tiles(128, 64, 8, 4)
    args = ("fusion.mix", CPU, 64, 1500, (512,), torch.bfloat16)
    before = tiles_for(*args)
    with trying("fusion.mix", tiles):
        assert tiles_for(*args) == tiles
    assert tiles_for(*args) == before
