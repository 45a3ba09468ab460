"""LoRA on the fused kernels: both paths against the definition in float64."""

import pytest
import torch
from operating import DEVICE, DTYPES, MOST, difference, randn

from speechadapt_kernels.lora.naive import naive_lora
from speechadapt_kernels.lora.operator import fold_lora, fused_lora

CASES = [
    # batch, frames, dim, out, ranks of the slices, slots
    (1, 1, 64, 64, [8], [0]),
    (3, 33, 128, 64, [16], [1, -1, 0]),
    (2, 20, 64, 256, [8, 8], [0, 1]),
    (3, 17, 128, 128, [4, 8, 12], [2, 0, -1]),
]


def matrices(case, seed=0):
    _, _, dim, out, ranks, slots = case
    count = max(slots) + 2
    down = [randn(count, r, dim, seed=seed + i) / dim**0.5 for i, r in enumerate(ranks)]
    up = [randn(count, out, r, seed=seed + 9 + i) / r**0.5 for i, r in enumerate(ranks)]
    return down, up


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(operators, dtype, case):
    batch, frames, dim, out, ranks, slots = case
    where = torch.tensor(slots, dtype=torch.int32)
    x = randn(batch, frames, dim, seed=20).to(dtype)
    base = randn(batch, frames, len(ranks) * out, seed=21).to(dtype)
    pull = randn(*base.shape, seed=22).to(dtype)

    def leaves(dtype, device):
        made = [x.to(device, dtype), base.to(device, dtype)]
        made += [
            m.to(device, torch.promote_types(dtype, torch.float32)) for m in [*pairs[0], *pairs[1]]
        ]
        return [leaf.detach().requires_grad_(True) for leaf in made]

    pairs = matrices(case)
    exact = leaves(torch.float64, "cpu")
    n = len(ranks)
    wanted = naive_lora(*exact[:2], exact[2 : 2 + n], exact[2 + n :], where, 0.5)
    mine = leaves(dtype, DEVICE)
    folded = fold_lora(mine[2 : 2 + n], mine[2 + n :], dtype)
    found = fused_lora(*mine[:2], folded, where.to(DEVICE), 0.5)
    assert difference(found, wanted) < MOST[dtype]
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(found[row].detach().cpu(), base[row])
    theirs = torch.autograd.grad(wanted, exact, pull.double())
    ours = torch.autograd.grad(found, mine, pull.to(DEVICE))
    for a, b in zip(ours, theirs, strict=True):
        assert difference(a, b) < 5 * MOST[dtype]


def test_gradcheck(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    case = (2, 3, 64, 64, [2, 3], [1, 0])
    down, up = matrices(case)
    tensors = [randn(2, 3, 64, seed=1), randn(2, 3, 128, seed=2), *down, *up]

    def call(x, base, a, b, c, d):
        folded = fold_lora([a, b], [c, d], torch.float64)
        return fused_lora(x, base, folded, torch.tensor([1, 0]), 0.5)

    tensors = [tensor.requires_grad_(True) for tensor in tensors]
    assert torch.autograd.gradcheck(call, tensors, fast_mode=True)


def test_widths_that_do_not_fit_are_refused():
    down, up = matrices((1, 1, 64, 64, [8], [0]))
    folded, slots = fold_lora(down, up, torch.float32), torch.tensor([0])
    with pytest.raises(ValueError, match="do not fit projections from 64 and to 64 values"):
        fused_lora(torch.zeros(1, 2, 128), torch.zeros(1, 2, 64), folded, slots)
    with pytest.raises(ValueError, match="do not fit projections"):
        fused_lora(torch.zeros(1, 2, 64), torch.zeros(1, 2, 100), folded, slots)
