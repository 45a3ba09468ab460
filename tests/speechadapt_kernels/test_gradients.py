"""Gradients of the operators whose backward is not a kernel: they are the definition's."""

from dataclasses import replace

import pytest
import torch
from operating import DEVICE, DTYPES, adapters, difference, each, leaves_of, randn
from test_contract import (
    Conformer,
    EightBits,
    Fusion,
    OneBit,
    Router,
    batch,
    check_gradients,
)
from test_fused_conformer import adapters as conformers
from test_fused_conformer import in_chunks
from test_fused_fusion import fusion

from speechadapt_kernels.conformer.folded import fold_conformer
from speechadapt_kernels.conformer.naive import naive_conformer
from speechadapt_kernels.conformer.operator import fused_conformer
from speechadapt_kernels.fusion.folded import fold_fusion, fold_shares
from speechadapt_kernels.fusion.operator import fused_fusion
from speechadapt_kernels.fusion.reassociated import reassociated_fusion
from speechadapt_kernels.lowbit.codes import BITS
from speechadapt_kernels.lowbit.folded import fold_lowbit
from speechadapt_kernels.lowbit.naive import naive_lowbit
from speechadapt_kernels.lowbit.operator import fused_lowbit

OPERATORS = (Router, Fusion, Conformer, EightBits, OneBit)


@pytest.fixture
def in_torch(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frames", [1, 33, 50])
def test_equal_to_the_definition(in_torch, kind, dtype, frames):
    """As far off as values may be, and no farther."""
    operator = kind(dtype, 64, 16)
    check_gradients(operator, *batch(operator, frames, [2, -1, 0, 2], dtype), times=1)


@pytest.mark.parametrize("kind", OPERATORS)
def test_whatever_path_leads_there(operators, kind):
    operator = kind(torch.float32, 128, 16)
    check_gradients(operator, *batch(operator, 3, [1, -1], torch.float32), times=1)


@pytest.mark.parametrize("kind", OPERATORS)
def test_rows_far_from_zero(in_torch, kind):
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 5, [2, 0], torch.float32)
    if kind is Fusion:  # their scores would be as large, and all but one share nothing
        operator.weights.query.div_(100)
    check_gradients(operator, x + 50.0, base, slots)


@pytest.mark.parametrize("kind", (Conformer, EightBits, OneBit))
def test_without_an_adapter(operators, kind):
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 3, [-1, -1], torch.float32)
    mine, past, *weights = check_gradients(operator, x, base, slots)
    assert not mine.any() and past.any() and not any(map(torch.any, weights))


@pytest.mark.parametrize("kind", OPERATORS)
def test_nothing_is_kept_where_none_is_asked_for(in_torch, kind):
    operator, kept = kind(torch.float32, 64, 16), []
    x, base, slots = batch(operator, 3, [1, 0], torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        assert operator.run(x, base, slots).grad_fn is None
        assert not kept
        x.requires_grad_(True)
        operator.run(x, base, slots)
        assert kept
        kept.clear()
        with torch.no_grad():
            assert operator.run(x, base, slots).grad_fn is None
    assert not kept


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_gradient_has_none(in_torch, kind):
    """It would be wrong in silence: sums of rounded rows are constants in it."""
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 3, [1, 0], torch.float32)
    x.requires_grad_(True)
    out = operator.run(x, base, slots).square().sum()
    (first,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_gradcheck_of_fusion(in_torch, norm):
    weights, leaves = leaves_of(fusion(3, 16, 64, norm))
    x, base = (randn(2, 3, 64, seed=s).requires_grad_(True) for s in (1, 2))

    def call(x, base, *leaves):
        rest = iter(leaves)
        made = fold_fusion(each(weights, lambda t: next(rest)), torch.float64, 0.5, 2.0)
        return fused_fusion(x, base, made, "gelu")  # and the attention

    assert torch.autograd.gradcheck(call, (x, base, *leaves), fast_mode=True)


def test_reassociated_is_compiled_without_a_break():
    weights, leaves = leaves_of(each(fusion(3, 16, 64), torch.Tensor.float))
    x = randn(2, 5, 64, seed=1).float().requires_grad_(True)

    def call(x):
        return reassociated_fusion(x, x, weights, "gelu", 0.5)[0].square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    found, wanted = (torch.autograd.grad(form(x), [x, *leaves]) for form in (compiled, call))
    assert max(map(difference, found, wanted)) < 1e-6


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 1, 3), (3,)], ids=str)
def test_gradcheck_of_shares(in_torch, shape):
    """One for each frame, for each utterance, and for all."""
    weights, leaves = leaves_of(adapters(3, 16, 64))
    x, shares = (randn(*s, seed=len(s)).requires_grad_(True) for s in ((2, 3, 64), shape))

    def call(x, shares, *leaves):
        rest = iter(leaves)
        made = fold_shares(each(weights, lambda t: next(rest)), torch.float64, 0.5)
        return fused_fusion(x, x, made, "silu", shares)

    assert torch.autograd.gradcheck(call, (x, shares, *leaves), fast_mode=True)


@pytest.mark.parametrize(("kernel", "batch_norm"), [(1, True), (5, False), (5, True)])
def test_gradcheck_of_the_conformer(in_torch, kernel, batch_norm):
    """Also of the states, before and after; fewer frames than the kernel is long."""
    weights, leaves = leaves_of(conformers(2, 64, 5, kernel, batch_norm))
    x, base = (randn(3, 3, 64, seed=s).requires_grad_(True) for s in (1, 2))
    state = randn(3, kernel - 1, 16, seed=3)
    state[..., 5:] = 0  # channels that are not there
    slots = torch.tensor([1, -1, 0])

    def call(x, base, state, *leaves):
        rest = iter(leaves)
        made = fold_conformer(each(weights, lambda t: next(rest)), torch.float64)
        return fused_conformer(x, base, made, slots, 0.5, state)

    inputs = (x, base, state.requires_grad_(True), *leaves)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_gradcheck_of_few_bits(in_torch, bits, norm):
    """Of scales and offsets too: what the rows sum to is made of them."""
    folded = fold_lowbit(adapters(2, 12, 64, norm, dtype=torch.float32), bits)
    floats = []
    each(folded, lambda t: floats.append(t.double()) if t.is_floating_point() else None)
    x, base = (randn(3, 2, 64, seed=s) for s in (1, 2))
    slots = torch.tensor([1, -1, 0])

    def call(x, base, *leaves):
        rest = iter(leaves)
        made = each(folded, lambda t: next(rest) if t.is_floating_point() else t)
        if norm:
            sums = (made.down.widened() * made.norm_weight[:, None]).sum(-1)
            made = replace(made, down_sum=sums.detach())
        return fused_lowbit(x, made, slots, "silu", 0.5, base)

    inputs = [t.requires_grad_(True) for t in (x, base, *floats)]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


def test_gradients_go_through_a_stream(operators):
    """From chunk to chunk by the state, as through the whole."""
    exact, wanted = leaves_of(conformers(2, 64, 8, 7, False))
    x, pull = (randn(2, 23, 64, seed=s) for s in (1, 2))
    slots = torch.tensor([1, 0], dtype=torch.int32)
    x.requires_grad_(True)
    wanted = torch.autograd.grad(naive_conformer(x, x, exact, slots, 0.5), [x, *wanted], pull)
    weights, leaves = leaves_of(each(exact, lambda t: t.float().to(DEVICE)))
    x = x.detach().float().to(DEVICE).requires_grad_(True)
    folded = fold_conformer(weights, torch.float32)
    out = in_chunks(x, folded, slots.to(DEVICE), [1, 2, 10, 10])
    found = torch.autograd.grad(out, [x, *leaves], pull.float().to(DEVICE))
    for mine, theirs in zip(found, wanted, strict=True):
        assert difference(mine, theirs) < 1e-5


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", (Router, Fusion, Conformer))
def test_padding_gives_no_gradient(operators, kind):
    """Frames behind the last that has one may hold anything."""
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 9, [1, 0], torch.float32)
    pull = randn(2, 6, 64, seed=3).float().to(DEVICE)
    weights, found = each(operator.weights, torch.Tensor.float), []
    padded = x.clone()
    padded[:, 6:] = float("nan")
    for states in (x[:, :6], padded):
        operator.weights, leaves = leaves_of(weights)
        states = states.detach().requires_grad_(True)
        out = operator.run(states, base[:, : states.shape[1]], slots)[:, :6]
        found.append(torch.autograd.grad(out, [states, *leaves], pull))
    (alone, *theirs), (mine, *ours) = found
    assert difference(mine[:, :6], alone) < 1e-6 and not mine[:, 6:].any()
    assert max(map(difference, ours, theirs)) < 1e-6


@pytest.mark.parametrize("bits", BITS)
def test_packed_few_bits(operators, bits):
    exact, wanted = leaves_of(adapters(2, 16, 64))
    x, pull = (randn(39, 64, seed=s) for s in (1, 2))
    x.requires_grad_(True)
    slots, offsets = (torch.tensor(t, dtype=torch.int32) for t in ([1, -1, 0], [0, 5, 6, 39]))
    out = naive_lowbit(x, exact, bits, slots, "gelu", 0.5, None, offsets)
    settings = {"allow_unused": True, "materialize_grads": True}  # the codes have none
    wanted = torch.autograd.grad(out, [x, *wanted], pull, **settings)
    weights, leaves = leaves_of(each(exact, lambda t: t.float().to(DEVICE)))
    x = x.detach().float().to(DEVICE).requires_grad_(True)
    slots, offsets = slots.to(DEVICE), offsets.to(DEVICE)
    folded = fold_lowbit(weights, bits)
    out = fused_lowbit(x, folded, slots, "gelu", 0.5, offsets=offsets, longest=33)
    found = torch.autograd.grad(out, [x, *leaves], pull.float().to(DEVICE), **settings)
    for mine, theirs in zip(found, wanted, strict=True):
        assert difference(mine, theirs) < 1e-5
