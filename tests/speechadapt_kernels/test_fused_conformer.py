"""The causal conformer adapter: both paths against the definition, whole and in chunks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operating import DEVICE, DTYPES, MOST, difference, leaves_of, randn

from speechadapt_kernels.conformer.folded import fold_conformer
from speechadapt_kernels.conformer.naive import naive_conformer
from speechadapt_kernels.conformer.operator import fused_conformer
from speechadapt_kernels.conformer.weights import ConformerWeights

CASES = [
    # frames, dim, channels, kernel, batch norm
    (1, 64, 8, 31, True),
    (33, 128, 16, 7, False),
    (50, 192, 20, 31, False),
    (17, 64, 5, 1, True),
]


def adapters(count, dim, channels, kernel, batch_norm):
    def made(*shape, seed, scale=1.0):
        return scale * randn(count, *shape, seed=seed)

    return ConformerWeights(
        norm_weight=1 + made(dim, seed=1, scale=0.1),
        norm_bias=made(dim, seed=2, scale=0.1),
        down=made(2 * channels, dim, seed=3, scale=dim**-0.5),
        down_bias=made(2 * channels, seed=4),
        conv=made(channels, kernel, seed=5, scale=kernel**-0.5),
        conv_bias=made(channels, seed=6),
        inner_weight=1 + made(channels, seed=7, scale=0.1),
        inner_bias=made(channels, seed=8, scale=0.1),
        mean=made(channels, seed=9) if batch_norm else None,
        var=0.5 + made(channels, seed=10).abs() if batch_norm else None,
        up=made(dim, channels, seed=11, scale=channels**-0.5),
        up_bias=made(dim, seed=12),
    )


def folded(weights, dtype):
    values = {k: None if t is None else t.to(DEVICE) for k, t in vars(weights).items()}
    return fold_conformer(replace(weights, **values), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_whole_utterances(operators, dtype, case):
    frames, dim, *rest = case
    weights = adapters(3, dim, *rest)
    x, base = (randn(3, frames, dim, seed=seed).to(dtype) for seed in (20, 21))
    slots = torch.tensor([2, -1, 0], dtype=torch.int32)
    wanted = naive_conformer(x.double(), base.double(), weights, slots, 0.5)
    found, state = fused_conformer(
        x.to(DEVICE), base.to(DEVICE), folded(weights, dtype), slots.to(DEVICE), 0.5
    )
    assert difference(found, wanted) < MOST[dtype]
    assert torch.equal(found[1].cpu(), base[1])
    assert torch.isfinite(state).all() and not state[1].any()


def in_chunks(x, weights, slots, lengths):
    state, parts, begin = None, [], 0
    for length in lengths:
        chunk = x[:, begin : begin + length]
        part, state = fused_conformer(chunk, chunk, weights, slots, 0.5, state)
        assert state.untyped_storage().nbytes() == state.nbytes  # keeps no frames alive
        parts.append(part)
        begin += length
    return torch.cat(parts, 1)


@pytest.mark.parametrize("slots", [[1, 0], [1, 1]], ids=str)
def test_a_stream_is_the_whole(operators, slots):
    weights = folded(adapters(2, 64, 8, 7, False), torch.float32)
    x = randn(2, 23, 64, seed=1).float().to(DEVICE)
    slots = torch.tensor(slots, dtype=torch.int32, device=DEVICE)
    whole, _ = fused_conformer(x, x, weights, slots, 0.5)
    assert difference(in_chunks(x, weights, slots, [1, 2, 10, 10]), whole) < 1e-6


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 12))
@settings(deadline=None, max_examples=25)
def test_any_chunks_of_any_stream(lengths, kernel):
    weights = fold_conformer(adapters(2, 64, 3, kernel, True), torch.float64)
    x, slots = randn(2, sum(lengths), 64, seed=1), torch.tensor([0, -1])
    whole, _ = fused_conformer(x, x, weights, slots, 0.5)
    torch.testing.assert_close(in_chunks(x, weights, slots, lengths), whole, rtol=0, atol=1e-12)


def test_no_later_frame_is_seen(operators):
    weights = folded(adapters(1, 64, 8, 5, False), torch.float32)
    x = randn(1, 12, 64, seed=1).float().to(DEVICE)
    slots = torch.tensor([0], dtype=torch.int32, device=DEVICE)
    before, _ = fused_conformer(x, x, weights, slots)
    x = x.clone()
    x[:, 8:] = float("nan")
    after, _ = fused_conformer(x, x, weights, slots)
    assert torch.equal(after[:, :8], before[:, :8])


def test_operator_is_well_behaved(operators):
    weights = folded(adapters(2, 64, 8, 5, False), torch.float32)
    x = randn(2, 3, 64, seed=1).float().to(DEVICE)
    slots = torch.tensor([1, -1], dtype=torch.int32, device=DEVICE)
    weights, _ = leaves_of(weights)
    *tensors, channels = vars(weights).values()
    x, base, state = (t.requires_grad_(True) for t in (x, x + 1, x.new_zeros(2, 4, 16)))
    args = (x, base, slots, state, *tensors, channels, 0.5)
    torch.library.opcheck(torch.ops.speechadapt.conformer.default, args)


def test_a_state_of_something_else_is_refused():
    weights = fold_conformer(adapters(1, 64, 8, 5, False), torch.float32)
    x, slots = torch.zeros(1, 2, 64), torch.tensor([0])
    with pytest.raises(ValueError, match=r"state \[1, 3, 16\] of .* expected \[1, 4, 16\]"):
        fused_conformer(x, x, weights, slots, state=torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match=r"state .* of torch.float64 is none of these"):
        fused_conformer(x, x, weights, slots, state=torch.zeros(1, 4, 16).double())
