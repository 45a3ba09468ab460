"""The bottleneck in few bits: both paths against the definition in float64."""

from dataclasses import replace

import pytest
import torch
from operating import DEVICE, DTYPES, MOST, adapters, difference, each, states

from speechadapt_kernels.lowbit.codes import BITS, from_codes, to_codes
from speechadapt_kernels.lowbit.folded import FoldedLowBit, fold_lowbit
from speechadapt_kernels.lowbit.naive import naive_lowbit
from speechadapt_kernels.lowbit.operator import fused_lowbit


def run(x, weights, bits, slots, activation="gelu", base=None, **settings):
    """On the device, in the type of ``x``."""
    folded = fold_lowbit(each(weights, lambda t: t.to(DEVICE)), bits)
    where = torch.tensor(slots, dtype=torch.int32, device=DEVICE)
    base = None if base is None else base.to(DEVICE)
    return fused_lowbit(x.to(DEVICE), folded, where, activation, 0.5, base, **settings)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("frames", "dim", "width", "slots", "norm", "activation"),
    [
        (1, 64, 16, [0], True, "gelu"),
        (33, 128, 24, [1, 0], True, "relu"),
        (5, 192, 64, [1, -1, 0], False, "silu"),
        (3, 64, 16, [-1, -1], True, "gelu"),
    ],
)
@pytest.mark.parametrize("same", [True, False], ids=["sequential", "parallel"])
def test_forward(operators, dtype, bits, frames, dim, width, slots, norm, activation, same):
    weights = adapters(max(slots) + 2, width, dim, norm, dtype=torch.float32)
    x = states(len(slots), frames, dim, seed=9).to(dtype)
    base = None if same else states(len(slots), frames, dim, seed=10).to(dtype)
    found = run(x, weights, bits, slots, activation, base)
    other = None if same else base.double()
    exact = each(weights, torch.Tensor.double)
    where = torch.tensor(slots)
    wanted = naive_lowbit(x.double(), exact, bits, where, activation, 0.5, other)
    assert found.dtype == dtype
    assert difference(found, wanted) < MOST[dtype]
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(found[row].cpu(), (x if same else base)[row])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_far_from_zero_and_small_weights(operators, bits, dtype):
    """The row's mean must cancel, and scales of 8-bit codes must not vanish in half precision."""
    weights = adapters(1, 16, 128, dtype=torch.float32)
    small = replace(weights, up=weights.up * 1e-3, up_bias=weights.up_bias * 1e-3)
    x = states(1, 7, 128, seed=1, mean=50.0).to(dtype)
    base = torch.zeros_like(x)  # of the adapter's part alone: the large mean would hide it
    found = run(x, small, bits, [0], base=base)
    exact, where = each(small, torch.Tensor.double), torch.tensor([0])
    wanted = naive_lowbit(x.double(), exact, bits, where, "gelu", 0.5, base.double())
    assert difference(found, wanted) < MOST[dtype]


@pytest.mark.parametrize("bits", BITS)
def test_a_packed_batch_is_the_padded_one(operators, bits):
    weights = adapters(2, 16, 64, dtype=torch.float32)
    parts = [states(1, length, 64, seed=length).float() for length in (5, 1, 20)]
    offsets = torch.tensor([0, 5, 6, 26], dtype=torch.int32, device=DEVICE)
    x, slots = torch.cat([part[0] for part in parts]), [1, -1, 0]
    packed = run(x, weights, bits, slots, offsets=offsets, longest=20)
    apart = [run(part, weights, bits, [slot]) for part, slot in zip(parts, slots, strict=True)]
    assert difference(packed, torch.cat([part[0] for part in apart])) < 1e-6


@pytest.mark.parametrize("bits", BITS)
def test_codes_take_what_they_should(bits):
    folded = fold_lowbit(adapters(3, 64, 512, dtype=torch.float32), bits)
    assert folded.down.codes.nbytes == folded.up.codes.nbytes == 3 * 64 * 512 * bits // 8
    assert folded.down.scale.shape == folded.up.scale.shape == (3, 64)


@pytest.mark.parametrize("bits", BITS)
def test_operator_is_well_behaved(operators, bits):
    folded: FoldedLowBit = fold_lowbit(adapters(2, 16, 64, dtype=torch.float32), bits)
    x = states(1, 3, 64, seed=1).float().to(DEVICE)
    slots = torch.tensor([1], dtype=torch.int32, device=DEVICE)
    down, up = ((m.codes, m.scale, m.offset) for m in (folded.down, folded.up))
    tensors = (*down, folded.down_sum, folded.down_bias, folded.norm_weight, *up, folded.up_bias)
    tensors = [t.to(DEVICE).requires_grad_(t.is_floating_point()) for t in tensors]
    torch.library.opcheck(
        torch.ops.speechadapt.lowbit_bottleneck.default,
        (x.requires_grad_(True), None, slots, *tensors, "gelu", 0.5, None, 0),
    )


def test_scales_lie_along_the_shorter_axis():
    tall = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    for matrix in (tall, tall.mT):
        codes, scale = to_codes(matrix, 8)
        assert len(scale) == 4
        assert (from_codes(codes, scale, 8) - matrix).abs().max() <= scale.max() / 2 * 1.001
    assert torch.equal(to_codes(tall, 8)[0].mT, to_codes(tall.mT, 8)[0])


@pytest.mark.parametrize(("width", "dim"), [(64, 64), (16, 100)])
def test_shapes_that_cannot_be_are_refused(width, dim):
    with pytest.raises(ValueError, match=f"a bottleneck of {width} in {dim}"):
        fold_lowbit(adapters(1, width, dim, dtype=torch.float32), 8)
