"""The fused bottleneck: both paths against the definition in float64."""

import pickle
from dataclasses import fields, replace

import pytest
import torch
from operating import DEVICE, DTYPES, MOST, adapters, difference, each, leaves_of, randn, states
from torch.func import jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from speechadapt_kernels.bottleneck.folded import fold
from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.bottleneck.stacked import bottleneck
from speechadapt_kernels.plan import CpuPlan, trying_cpu

CASES = [
    # batch, frames, dim, width, slots, norm, activation
    (1, 1, 64, 16, [0], True, "gelu"),
    (2, 33, 128, 24, [1, 0], True, "relu"),
    (3, 50, 192, 64, [1, -1, 0], False, "silu"),
    (2, 17, 512, 8, [0, 0], True, "gelu"),
    (2, 3, 64, 16, [-1, -1], True, "gelu"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("same", [True, False], ids=["sequential", "parallel"])
def test_forward(operators, dtype, case, same):
    batch, frames, dim, width, slots, norm, activation = case
    weights = adapters(max(slots) + 2, width, dim, norm)
    x = states(batch, frames, dim, seed=9).to(dtype)
    base = None if same else states(batch, frames, dim, seed=10).to(dtype)
    where = torch.tensor(slots, dtype=torch.int32, device=DEVICE)
    folded = fold(each(weights, lambda t: t.to(DEVICE)), dtype)
    found = fused_bottleneck(
        x.to(DEVICE), folded, where, activation, 0.5, None if same else base.to(DEVICE)
    )
    wanted = naive_bottleneck(
        x.double(), weights, where.cpu(), activation, 0.5, None if same else base.double()
    )
    assert difference(found, wanted) < MOST[dtype]
    assert found.dtype == dtype
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(found[row].cpu(), (x if same else base)[row])


def run(x, weights, slots, activation="gelu", scale=0.5, **settings):
    """On the device, in the type of ``x``."""
    folded = fold(each(weights, lambda t: t.to(DEVICE)), x.dtype)
    where = torch.tensor(slots, dtype=torch.int32, device=DEVICE)
    on_device = {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
        for name, value in settings.items()
    }
    return fused_bottleneck(x.to(DEVICE), folded, where, activation, scale, **on_device)


def gradients(call, x, base, weights, seed):
    """Of a random sum over what ``call`` gives: of the source, the base and every weight."""
    leaves = [x, *([] if base is None else [base])]
    leaves += [v for f in fields(weights) if (v := getattr(weights, f.name)) is not None]
    for leaf in leaves:
        leaf.requires_grad_(True)
    out = call()
    pull = randn(*out.shape, seed=seed).to(out.device, out.dtype)
    return torch.autograd.grad(out, leaves, pull)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES[1:4], ids=str)
@pytest.mark.parametrize("same", [True, False], ids=["sequential", "parallel"])
def test_gradients(operators, dtype, case, same):
    batch, frames, dim, width, slots, norm, activation = case
    weights = adapters(max(slots) + 2, width, dim, norm)
    x = states(batch, frames, dim, seed=9).to(dtype)
    base = None if same else states(batch, frames, dim, seed=10).to(dtype)
    wanted = gradients(
        lambda: naive_bottleneck(exact, weights, torch.tensor(slots), activation, 0.5, other),
        exact := x.double(),
        other := None if same else base.double(),
        weights,
        seed=11,
    )
    plain = each(weights, lambda t: t.detach().float().clone())
    x = x.detach().clone()
    found = gradients(lambda: run(x, plain, slots, activation, base=base), x, base, plain, seed=11)
    for mine, theirs in zip(found, wanted, strict=True):
        assert difference(mine, theirs) < 5 * MOST[dtype]


def test_gradcheck(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    slots = torch.tensor([1, -1, 0])
    for norm in (True, False):
        weights = adapters(2, 16, 64, norm)
        x = states(3, 2, 64, seed=9).requires_grad_(True)
        base = states(3, 2, 64, seed=10).requires_grad_(True)
        names = [f.name for f in fields(weights) if getattr(weights, f.name) is not None]
        leaves = [getattr(weights, name).requires_grad_(True) for name in names]

        def call(x, base, *leaves, names=names, weights=weights):
            made = replace(weights, **dict(zip(names, leaves, strict=True)))
            return fused_bottleneck(x, fold(made, x.dtype), slots, "gelu", 0.5, base)

        assert torch.autograd.gradcheck(call, (x, base, *leaves), fast_mode=True)


def test_a_packed_batch_is_the_padded_one(operators):
    weights, lengths, slots = adapters(3, 16, 64), [5, 1, 33], [2, -1, 0]
    parts = [states(1, length, 64, seed=length).float() for length in lengths]
    offsets = torch.tensor([0, 5, 6, 39], dtype=torch.int32)
    x = torch.cat([part[0] for part in parts]).requires_grad_(True)
    packed = run(x, weights, slots, offsets=offsets, longest=33)
    apart = [run(part, weights, [slot]) for part, slot in zip(parts, slots, strict=True)]
    assert difference(packed, torch.cat([part[0] for part in apart])) < 1e-6
    pull = randn(39, 64, seed=3).float().to(DEVICE)
    (found,) = torch.autograd.grad(packed, x, pull)
    exact = x.detach().double().requires_grad_(True)
    wanted = naive_bottleneck(exact, weights, torch.tensor(slots), "gelu", 0.5, None, offsets)
    (wanted,) = torch.autograd.grad(wanted, exact, pull.double().cpu())
    assert difference(found, wanted) < 1e-5


def test_packed_gradients_of_weights(operators):
    weights, slots = adapters(2, 16, 64), [1, -1, 1]
    offsets = torch.tensor([0, 5, 6, 39], dtype=torch.int32)
    x = states(39, 64, seed=3)
    wanted = gradients(
        lambda: naive_bottleneck(x, weights, torch.tensor(slots), "gelu", 0.5, None, offsets),
        x,
        None,
        weights,
        seed=5,
    )
    plain, mine = each(weights, lambda t: t.detach().float().clone()), x.detach().float()
    found = gradients(
        lambda: run(mine, plain, slots, offsets=offsets, longest=33), mine, None, plain, seed=5
    )
    for a, b in zip(found, wanted, strict=True):
        assert difference(a, b) < 1e-5


@pytest.mark.parametrize(("frames", "dim"), [(1, 384), (33, 64), (1214, 64), (1500, 64)])
def test_odd_sizes(operators, frames, dim):
    weights = adapters(1, 8, dim)
    x = states(1, frames, dim, seed=1).float()
    wanted = naive_bottleneck(x.double(), weights, torch.tensor([0]), "gelu", 0.5)
    assert difference(run(x, weights, [0]), wanted) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_far_from_zero(operators, dtype):
    weights = adapters(1, 16, 128)
    x = states(1, 7, 128, seed=1, mean=50.0).to(dtype)
    wanted = naive_bottleneck(x.double(), weights, torch.tensor([0]), "gelu", 0.5) - x.double()
    # Of the adapter's part alone: the large mean would hide it.
    found = run(x, weights, [0], base=torch.zeros_like(x))
    assert difference(found, wanted) < MOST[dtype]


def test_the_same_twice_and_nothing_stale(operators):
    weights, x = adapters(2, 16, 64), states(2, 20, 64, seed=1).float()
    first = run(x, weights, [0, 1])
    assert torch.equal(run(x, weights, [-1, -1]).cpu(), x)
    assert torch.equal(run(x, weights, [0, 1]), first)
    assert torch.equal(run(x.flip(0), weights, [1, 0]), first.flip(0))


def test_a_fresh_adapter_is_the_identity(operators):
    weights = adapters(1, 16, 64)
    weights = replace(weights, up=torch.zeros_like(weights.up), up_bias=weights.up_bias * 0)
    x = states(1, 20, 64, seed=1).float()
    assert torch.equal(run(x, weights, [0]).cpu(), x)


def test_operator_is_well_behaved(operators):
    folded = fold(adapters(2, 16, 64), torch.float32)
    x = states(2, 3, 64, seed=1).float().to(DEVICE).requires_grad_(True)
    slots = torch.tensor([1, -1], dtype=torch.int32, device=DEVICE)
    tensors = [
        each.to(DEVICE) if isinstance(each := getattr(folded, f.name), torch.Tensor) else each
        for f in fields(folded)
        if f.name != "slices"  # the operator sees it in the shapes
    ]
    settings = ("gelu", 0.5, None, 0)
    torch.library.opcheck(
        torch.ops.speechadapt.bottleneck.default, (x, None, slots, *tensors, *settings)
    )


def test_compiled_without_a_break(operators):
    weights, x = adapters(2, 16, 64), states(2, 5, 64, seed=1).float().to(DEVICE)
    folded = fold(each(weights, lambda t: t.to(DEVICE)), torch.float32)
    slots = torch.tensor([1, 0], dtype=torch.int32, device=DEVICE)

    def call(x):
        return fused_bottleneck(2 * x, folded, slots, "gelu") + 1

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), call(x))


@pytest.mark.parametrize(
    ("shape", "slots", "offsets", "words"),
    [
        ((2, 3, 64), [0], None, "packed frames need offsets"),
        ((6, 64), [0, 1], [0, 6], "of 2 slots"),
        ((2, 3, 64), [0.0, 1.0], None, "slots are integers"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(shape, slots, offsets, words):
    folded = fold(adapters(2, 16, 64), torch.float32)
    offsets = None if offsets is None else torch.tensor(offsets)
    with pytest.raises(ValueError, match=words):
        fused_bottleneck(torch.zeros(shape), folded, torch.tensor(slots), "gelu", offsets=offsets)


def folded_pair():
    return fold(adapters(2, 16, 64, dtype=torch.float32), torch.float32)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_who_traces_is_shown_the_operator(plain):
    """Slots are no constants of a trace."""
    x, folded = states(2, 5, 64, seed=1).float(), folded_pair()

    def call(x, slots):
        return fused_bottleneck(x, folded, slots, "gelu")

    first, then = (torch.tensor(slots, dtype=torch.int32) for slots in ([0, -1], [-1, 1]))
    for traced in (torch.jit.trace(call, (x, first)), make_fx(call)(x, first)):
        assert torch.equal(traced(x, then), call(x, then))


def test_whom_nobody_adapts_leads_to_the_weights(plain):
    folded = folded_pair()
    folded.down.requires_grad_(True)
    x = states(2, 5, 64, seed=1).float()
    out = fused_bottleneck(x, folded, torch.tensor([-1, -1]), "gelu")
    (gradient,) = torch.autograd.grad(out.sum(), folded.down)
    assert torch.equal(out, x) and not gradient.any()


def test_empty_batches(plain):
    nobody = torch.tensor([], dtype=torch.int32)
    assert fused_bottleneck(torch.zeros(0, 5, 64), folded_pair(), nobody, "gelu").shape == (
        0,
        5,
        64,
    )
    offsets = torch.tensor([0], dtype=torch.int32)
    packed = fused_bottleneck(torch.zeros(0, 64), folded_pair(), nobody, "gelu", offsets=offsets)
    assert packed.shape == (0, 64)


@pytest.mark.parametrize("bounds", [[0, 2, 5], [2, 5, 7], [0, 8, 7]], ids=str)
def test_offsets_that_leave_frames_out(plain, bounds):
    offsets, slots = (torch.tensor(each, dtype=torch.int32) for each in (bounds, [0, 1]))
    with pytest.raises(ValueError, match="not ascending from 0 to 7"):
        fused_bottleneck(torch.zeros(7, 64), folded_pair(), slots, "gelu", offsets=offsets)


def test_together_and_apart(plain):
    """Utterances of several adapters in one product, or one after the other: gradients as well."""
    slots = torch.tensor([1, 0, 1], dtype=torch.int32)
    x, found = states(3, 5, 64, seed=1).float(), []
    for from_bytes in (1, 1 << 30):
        with trying_cpu(CpuPlan(from_bytes, 1 << 20)):
            weights, leaves = leaves_of(adapters(2, 16, 64, dtype=torch.float32))
            out = fused_bottleneck(x, fold(weights, torch.float32), slots, "gelu", 0.5)
            found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*found, strict=True):
        assert difference(one, other) < 1e-6


def test_weights_that_begin_to_learn(plain):
    """Nothing of a call without gradients is left in the way of one with them."""
    x, slots, folded = states(2, 5, 64, seed=1).float(), torch.tensor([0, 0]), folded_pair()
    with torch.inference_mode():
        first = fused_bottleneck(x, folded, slots, "gelu")
    folded.up.requires_grad_(True)
    out = fused_bottleneck(x, folded, slots, "gelu")
    (gradient,) = torch.autograd.grad(out.sum(), folded.up)
    assert torch.equal(out, first) and gradient[0].any() and not gradient[1].any()
    with torch.no_grad():
        folded.up.zero_()
        assert not torch.equal(fused_bottleneck(x, folded, slots, "gelu"), first)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transforms_of_functions(plain):
    """Nothing is written in place, not even where nothing learns."""
    x, slots = states(3, 2, 5, 64, seed=1), torch.tensor([-1, 1])
    folded = fold(adapters(2, 16, 64), torch.float64)

    def call(each):
        return fused_bottleneck(each, folded, slots, "gelu", 0.5)

    assert difference(vmap(call)(x), torch.stack([call(each) for each in x])) < 1e-12
    tangent, step = states(2, 5, 64, seed=2), 1e-6
    made, slope = jvp(call, (x[0],), (tangent,))
    wanted = (call(x[0] + step * tangent) - call(x[0] - step * tangent)) / (2 * step)
    assert difference(made, call(x[0])) < 1e-12 and difference(slope, wanted) < 1e-6


def test_pickled_without_what_is_made_anew(plain):
    folded = folded_pair()
    size = len(pickle.dumps(folded))
    assert len(folded.parts) == 2
    assert len(pickle.dumps(folded)) == size


def test_plain_sums_with_a_base_that_broadcasts():
    """As the language adapters of MMS, which drop what is there."""
    weights, x = adapters(2, 16, 64), states(2, 3, 5, 64, seed=1)
    wanted = bottleneck(x, torch.zeros_like(x), weights, "relu")
    for shape in ((), (1, 1, 1, 64), (2, 1, 5, 64)):
        with torch.inference_mode():
            found = bottleneck(x, x.new_zeros(shape), weights, "relu")
        assert torch.equal(found, wanted)


def test_plain_sums_in_mixed_precision_without_gradients():
    """As a teacher's, within the training of another."""
    x, stacked = states(2, 3, 5, 64, seed=1).float(), adapters(2, 16, 64, dtype=torch.float32)
    wanted = bottleneck(x, x, stacked, "gelu")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = bottleneck(x, x, stacked, "gelu")
    assert found.dtype == torch.float32 and 0 < difference(found, wanted) < 1e-2
