"""AdapterFusion: every form against the definition in float64."""

import pytest
import torch
from operating import DEVICE, DTYPES, MOST, difference, leaves_of, randn
from test_fused_bottleneck import adapters, each

from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.fusion.folded import fold_fusion, fold_shares
from speechadapt_kernels.fusion.naive import naive_fusion
from speechadapt_kernels.fusion.operator import fused_fusion
from speechadapt_kernels.fusion.reassociated import reassociated_fusion
from speechadapt_kernels.fusion.weights import FusionWeights

CASES = [(1, 16, 64, True), (3, 8, 128, True), (5, 32, 64, False), (8, 16, 192, True)]


def fusion(count, width, dim, norm=True, seed=0):
    def matrix(seed):
        return randn(dim, dim, seed=seed) / dim**0.5

    return FusionWeights(
        adapters(count, width, dim, norm, seed),
        query=matrix(seed + 20),
        query_bias=randn(dim, seed=seed + 21),
        key=matrix(seed + 22),
        value=matrix(seed + 23),
    )


def on_device(weights):
    return each(weights, lambda t: t.to(DEVICE))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reassociated_is_the_definition(case):
    count, width, dim, norm = case
    weights = fusion(count, width, dim, norm)
    leaves = [randn(2, 7, dim, seed=1), randn(2, 7, dim, seed=2)]
    leaves += [weights.query, weights.query_bias, weights.key, weights.value]
    leaves += [getattr(weights.adapters, k) for k in ("down", "down_bias", "up", "up_bias")]
    for leaf in leaves:
        leaf.requires_grad_(True)
    pull, found = randn(2, 7, dim, seed=3), []
    for form in (naive_fusion, reassociated_fusion):
        out, attention = form(*leaves[:2], weights, "gelu", 0.5, 2.0)
        found.append([out, attention, *torch.autograd.grad(out, leaves, pull)])
    for mine, theirs in zip(*found, strict=True):
        assert difference(mine, theirs) < 1e-12


def test_training_holds_nothing_as_wide_as_the_model_for_each_adapter():
    """What autograd keeps for the backward, against the definition's."""
    weights, x = fusion(8, 8, 256), randn(1, 50, 256, seed=1).requires_grad_(True)
    held = []
    for form in (reassociated_fusion, naive_fusion):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.setdefault(t.data_ptr(), t), lambda t: t
        ):
            form(x, x, weights, "gelu")
        # Tensors with a value for each frame; parameters are there anyway.
        held.append(sum(t.numel() for t in kept.values() if 50 in t.shape))
    assert held[0] < 0.4 * held[1]
    assert held[0] < 8 * x.numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_folded_is_the_definition(operators, dtype, case):
    count, width, dim, norm = case
    weights = fusion(count, width, dim, norm)
    x, base = (randn(2, 11, dim, seed=seed).to(dtype) for seed in (1, 2))
    wanted, shares = naive_fusion(x.double(), base.double(), weights, "gelu", 0.5, 2.0)
    folded = fold_fusion(on_device(weights), dtype, 0.5, 2.0)
    found, attention = fused_fusion(x.to(DEVICE), base.to(DEVICE), folded, "gelu")
    assert difference(found, wanted) < MOST[dtype]
    assert difference(attention, shares) < 2 * MOST[dtype]
    assert found.dtype == dtype
    again, _ = fused_fusion(x.to(DEVICE), base.to(DEVICE), folded, "gelu")
    assert torch.equal(again, found)


def test_folded_in_float64_is_exact(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    weights, x = fusion(3, 24, 64), randn(2, 11, 64, seed=1)
    wanted, _ = naive_fusion(x, x, weights, "relu", 0.5, 3.0)
    found, _ = fused_fusion(x, x, fold_fusion(weights, torch.float64, 0.5, 3.0), "relu")
    assert difference(found, wanted) < 1e-14


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 1, 3)], ids=["frame", "utterance"])
def test_shares_of_a_router(operators, shape):
    weights, x = adapters(3, 16, 64), randn(2, 9, 64, seed=1)
    shares = randn(*shape, seed=2).softmax(-1)
    wanted = x.clone()
    for n in range(3):
        slots = torch.full((2,), n)
        only = naive_bottleneck(x, weights, slots, "gelu", 0.5, torch.zeros_like(x))
        wanted += shares[..., n : n + 1] * only
    folded = fold_shares(each(weights, lambda t: t.to(DEVICE)), torch.float32, 0.5)
    x = x.float().to(DEVICE)
    found, given = fused_fusion(x, x, folded, "gelu", shares.float().to(DEVICE))
    assert difference(found, wanted) < 1e-5
    assert difference(given, shares.expand(2, 9, 3)) < 1e-6


def test_operator_is_well_behaved(operators):
    folded = fold_fusion(on_device(fusion(2, 16, 64)), torch.float32)
    x = randn(2, 3, 64, seed=1).float().to(DEVICE)
    folded, _ = leaves_of(folded)
    *tensors, scores = vars(folded).values()
    args = (x.requires_grad_(True), x, *tensors, *vars(scores).values(), "gelu", None)
    torch.library.opcheck(torch.ops.speechadapt.fusion.default, args)


def test_what_does_not_go_together_is_refused():
    folded = fold_shares(adapters(2, 16, 64), torch.float32)
    x = torch.zeros(1, 2, 64)
    with pytest.raises(ValueError, match="shares are given"):
        fused_fusion(x, x, folded, "gelu")
    with pytest.raises(ValueError, match="do not fit adapters of 64"):
        fused_fusion(torch.zeros(1, 2, 32), x, folded, "gelu", torch.ones(2))
