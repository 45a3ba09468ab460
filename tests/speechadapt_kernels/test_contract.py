"""What every operator holds: right at odd sizes, with every row of the plan, again and again."""

import contextlib
from dataclasses import replace

import pytest
import torch
from operating import DEVICE, DTYPES, MOST, adapters, difference, each, leaves_of, randn
from test_fused_conformer import adapters as conformers
from test_fused_fusion import fusion, on_device
from test_fused_log_mel import filters, waves

from speechadapt_kernels.bottleneck.folded import fold, fold_average
from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.conformer.folded import fold_conformer
from speechadapt_kernels.conformer.naive import naive_conformer
from speechadapt_kernels.conformer.operator import fused_conformer
from speechadapt_kernels.fusion.folded import fold_fusion, fold_shares
from speechadapt_kernels.fusion.naive import naive_fusion
from speechadapt_kernels.fusion.operator import fused_fusion
from speechadapt_kernels.logmel import log_mel
from speechadapt_kernels.logmel.naive import naive_log_mel
from speechadapt_kernels.lora.naive import naive_lora
from speechadapt_kernels.lora.operator import fold_lora, fused_lora
from speechadapt_kernels.lowbit.folded import fold_lowbit
from speechadapt_kernels.lowbit.naive import naive_lowbit
from speechadapt_kernels.lowbit.operator import fused_lowbit
from speechadapt_kernels.plan import CpuPlan, Tiles, read_plan, trying, trying_cpu

SHARES = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
COUNT = len(SHARES)  # adapters


class Operator:
    """An operator and its definition, both of states, a base and slots."""

    kernels = ()
    slices = 1
    routed = True  # reads slots

    def __init__(self, dtype, dim, width):
        self.dtype, self.dim, self.width = dtype, dim, width
        self.weights = self.made()

    def made(self):
        return adapters(COUNT, self.width, self.dim)

    def on_device(self):
        return each(self.weights, lambda t: t.to(DEVICE))


class Bottleneck(Operator):
    kernels = ("bottleneck.forward", "bottleneck.backward", "bottleneck.outer")

    def run(self, x, base, slots):
        folded = fold(self.on_device(), self.dtype)
        return fused_bottleneck(x, folded, slots, "gelu", 0.5, base)

    def wanted(self, x, base, slots):
        return naive_bottleneck(x, self.weights, slots, "gelu", 0.5, base)


class Average(Operator):
    routed = False
    kernels = ("bottleneck.forward",)

    def run(self, x, base, slots):
        folded = fold_average(self.on_device(), SHARES.to(DEVICE), self.dtype)
        return fused_bottleneck(x, folded, torch.zeros_like(slots), "gelu", 0.5, base)

    def wanted(self, x, base, slots):
        made = base.clone()
        for n, share in enumerate(SHARES):
            one = torch.full_like(slots, n)
            made += share * naive_bottleneck(
                x, self.weights, one, "gelu", 0.5, torch.zeros_like(base)
            )
        return made


class Router(Average):
    kernels = ("fusion.score", "fusion.mix")

    def run(self, x, base, slots):
        folded = fold_shares(self.on_device(), self.dtype, 0.5)
        shares = SHARES.to(DEVICE, torch.promote_types(self.dtype, torch.float32))
        return fused_fusion(x, base, folded, "gelu", shares)[0]


class Fusion(Operator):
    routed = False
    kernels = ("fusion.score", "fusion.mix")

    def made(self):
        return fusion(COUNT, self.width, self.dim)

    def run(self, x, base, slots):
        folded = fold_fusion(on_device(self.weights), self.dtype, 0.5, 2.0)
        return fused_fusion(x, base, folded, "gelu")[0]

    def wanted(self, x, base, slots):
        return naive_fusion(x, base, self.weights, "gelu", 0.5, 2.0)[0]


class Lora(Operator):
    kernels = ("bottleneck.forward",)
    slices = 2

    def made(self):
        rank = self.width // 2
        down = [randn(COUNT, rank, self.dim, seed=s) / self.dim**0.5 for s in (1, 2)]
        return down, [randn(COUNT, self.dim, rank, seed=s) / rank**0.5 for s in (3, 4)]

    def run(self, x, base, slots):
        down, up = ([m.to(DEVICE) for m in side] for side in self.weights)
        return fused_lora(x, base, fold_lora(down, up, self.dtype), slots, 0.5)

    def wanted(self, x, base, slots):
        return naive_lora(x, base, *self.weights, slots, 0.5)


class Conformer(Operator):
    kernels = ("conformer.glu", "conformer.conv")

    def made(self):
        return conformers(COUNT, self.dim, self.width, 7, False)

    def run(self, x, base, slots):
        values = {k: None if t is None else t.to(DEVICE) for k, t in vars(self.weights).items()}
        folded = fold_conformer(replace(self.weights, **values), self.dtype)
        return fused_conformer(x, base, folded, slots, 0.5)[0]

    def wanted(self, x, base, slots):
        return naive_conformer(x, base, self.weights, slots, 0.5)


class EightBits(Operator):
    kernels = ("lowbit.forward",)
    bits = 8

    def made(self):
        return adapters(COUNT, self.width, self.dim, dtype=torch.float32)

    def run(self, x, base, slots):
        return fused_lowbit(x, fold_lowbit(self.on_device(), self.bits), slots, "gelu", 0.5, base)

    def wanted(self, x, base, slots):
        exact = each(self.weights, torch.Tensor.double)
        return naive_lowbit(x, exact, self.bits, slots, "gelu", 0.5, base)


class OneBit(EightBits):
    bits = 1


OPERATORS = (Bottleneck, Average, Router, Fusion, Lora, Conformer, EightBits, OneBit)
ALSO_BACKWARD = ("bottleneck.backward", "bottleneck.outer")


def batch(operator, frames, slots, dtype):
    """States, base and slots, on the device."""
    x = randn(len(slots), frames, operator.dim, seed=20).to(DEVICE, dtype)
    base = randn(len(slots), frames, operator.slices * operator.dim, seed=21).to(DEVICE, dtype)
    return x, base, torch.tensor(slots, dtype=torch.int32, device=DEVICE)


def check(operator, x, base, slots):
    found = operator.run(x, base, slots)
    wanted = operator.wanted(x.double().cpu(), base.double().cpu(), slots.cpu())
    assert found.dtype == x.dtype
    for mine, theirs in zip(found, wanted, strict=True):  # one cannot hide in the others
        assert difference(mine, theirs) < MOST[x.dtype]
    return found


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize(
    ("frames", "dtype"),
    [(1, 0), (1, 1), (33, 1), (50, 0), (1214, 1), (1500, 0)],
    ids=str,
)
def test_odd_sizes(operators, kind, frames, dtype):
    dtype = DTYPES[-1 if dtype else 0]
    operator = kind(dtype, 64, 16)
    with contextlib.ExitStack() as few:
        if frames > 1000 and DEVICE.type == "cpu":  # the interpreter takes its time for each tile
            for kernel in kind.kernels:
                few.enter_context(trying(kernel, Tiles(64, 64, 4, 1)))
        slots = [1] if frames > 1000 else [2, -1, 0]
        check(operator, *batch(operator, frames, slots, dtype))


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_again_and_whatever_lies_where(operators, kind, dtype):
    """The same twice; nothing is left of another call; views are what they show."""
    operator = kind(dtype, 128, 16)
    x, base, slots = batch(operator, 20, [2, -1, 0], dtype)
    first = check(operator, x, base, slots)
    if kind.routed:
        assert torch.equal(operator.run(x, base, torch.full_like(slots, -1)), base)
        assert torch.equal(first[1], base[1])
    assert torch.equal(operator.run(x, base, slots), first)
    views = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (x, base)]
    strided = torch.stack([slots, torch.full_like(slots, 1)], 1)[:, 0]
    turned = operator.run(*views, strided)
    assert torch.equal(turned, first) and turned.is_contiguous()


@pytest.mark.parametrize("kind", [Bottleneck, Average, Lora, Conformer, EightBits, OneBit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_blocks_on_a_cpu(plain, kind, dtype):
    """As many frames at a time as the plan says, and nothing written into what went in."""
    operator = kind(dtype, 64, 16)
    x, base, slots = batch(operator, 20, [2, 2, -1, 0], dtype)
    kept, wanted = (x.clone(), base.clone()), operator.run(x, base, slots)
    for size in (1, 7 * base.shape[-1] * base.itemsize, 1 << 30):
        with trying_cpu(CpuPlan(1, size)):
            found = operator.run(x, base, slots)
        assert difference(found, wanted) < MOST[dtype]
        assert torch.equal(x, kept[0]) and torch.equal(base, kept[1])


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("slots", [[1, 1], [-1, 1], [0, 1]], ids=str)
def test_mixed_precision(plain, kind, slots):
    """What runs under autocast keeps the states' type, and the base its digits."""
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 5, slots, torch.float32)
    wanted = operator.run(x, base, slots)
    with torch.autocast(DEVICE.type, torch.bfloat16), torch.no_grad():
        found = operator.run(x, base + 1000, slots)
    assert found.dtype == torch.float32
    assert difference(found - 1000, wanted) < MOST[torch.bfloat16]


@pytest.mark.parametrize("kind", [Bottleneck, Average, Router, Conformer, EightBits, OneBit])
def test_weights_may_lie_anywhere(operators, kind):
    """What is folded is of its own, in rows: kernels read no strides."""
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 5, [1, -1], torch.float32)
    if kind is not Conformer:  # a norm would make vectors anew
        operator.weights = replace(operator.weights, norm_weight=None, norm_bias=None)
    wanted = operator.run(x, base, slots)
    changes = {
        key: torch.stack((value, torch.full_like(value, float("nan"))), -1)[..., 0]
        for key, value in vars(operator.weights).items()
        if value is not None
    }
    operator.weights = replace(operator.weights, **changes)
    assert difference(operator.run(x, base, slots), wanted) < 1e-6


@pytest.mark.parametrize("kind", OPERATORS)
def test_frames_of_one_adapter_may_lie_in_columns(operators, kind):
    """As a convolution gives them; what comes out lies in rows, for a compiler too."""
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 5, [1, 1], torch.float32)
    wanted = operator.run(x, base, slots)
    columns = [t.mT.contiguous().mT for t in (x, base)]
    found = operator.run(*columns, slots)
    assert found.is_contiguous() and difference(found, wanted) < 1e-6
    torch._dynamo.reset()
    flat = torch.compile(
        lambda *states: operator.run(*states, slots).view(-1), fullgraph=True, backend="aot_eager"
    )
    assert difference(flat(*columns), wanted.view(-1)) < 1e-6


@pytest.mark.parametrize("kind", OPERATORS)
def test_compiled_without_a_break(operators, kind):
    operator = kind(torch.float32, 64, 16)
    x, base, slots = batch(operator, 5, [2, -1], torch.float32)

    def call(x, base):
        return operator.run(2 * x, base, slots).view(-1) + 1

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    turned = base.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(compiled(x, turned), call(x, turned))
    x.requires_grad_(True)
    pull = torch.autograd.grad(compiled(x, base).square().sum(), x)[0]
    # Where torch itself computes, it may go back on a way of its own.
    plain = torch.autograd.grad(call(x, base).square().sum(), x)[0]
    assert difference(pull, plain) < 1e-6


@pytest.mark.parametrize("kind", (Bottleneck, Lora, Fusion, Conformer, EightBits, OneBit))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_row_of_the_plan(kind, dtype, monkeypatch):
    """More than one tile of each, and the last one not full."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    operator = kind(dtype, 128, 16)
    inputs = batch(operator, 70, [1, -1] if kind.routed else [0], dtype)
    for row in read_plan("default"):
        mine = row.kernel in kind.kernels and row.kernel not in ALSO_BACKWARD
        if mine and (row.dtype == "float32") == (dtype == torch.float32):
            with trying(row.kernel, row.tiles):
                check(operator, *inputs)


@pytest.mark.parametrize("kind", (Bottleneck, Lora))
@pytest.mark.parametrize("dim", [64, 192, 384])
def test_programs_share_the_columns_of_a_tile(monkeypatch, kind, dim):
    """As many as divide them."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    operator = kind(torch.float16, dim, 16)
    inputs = batch(operator, 35, [1, -1, 0], torch.float16)
    with trying("bottleneck.forward", Tiles(16, 64, 4, 2, splits=4)):
        found = check(operator, *inputs)
    assert torch.equal(found[1], inputs[1][1])  # nobody's


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_row_of_gradients(dtype, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    operator = Bottleneck(dtype, 128, 16)
    inputs = batch(operator, 70, [1], dtype)
    for row in read_plan("default"):
        if row.kernel in ALSO_BACKWARD and (row.dtype == "float32") == (dtype == torch.float32):
            with trying(row.kernel, row.tiles):
                check_gradients(operator, *inputs)


def test_every_row_of_log_mel(monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    x, lengths, mel = waves(2, 11_000), torch.tensor([70, 33]), filters()
    wanted = naive_log_mel(x, lengths, mel, 70)
    for row in read_plan("default"):
        if row.kernel == "logmel.spectrum":
            with trying(row.kernel, row.tiles):
                found = log_mel(x.to(DEVICE), lengths.to(DEVICE), mel.to(DEVICE), 70)
            assert difference(found, wanted) < 1e-5


@pytest.mark.parametrize(("dim", "width"), [(2048, 8), (768, 256), (64, 512)])
def test_the_widest(operators, dim, width):
    dtype = torch.float16 if width > 256 else torch.float32
    operator = Bottleneck(dtype, dim, width)
    inputs = batch(operator, 3, [1], dtype)
    check(operator, *inputs)
    check_gradients(operator, *inputs)


def check_gradients(operator, x, base, slots, times=5):
    """Of states, base and weights, so many times as far off as values may be; returns them."""
    pull = randn(*base.shape, seed=22).to(x.device, x.dtype)

    def gradients(x, base, weights, slots, call):
        leaves = [t.detach().requires_grad_(True) for t in (x, base)]
        before = operator.weights
        operator.weights, held = leaves_of(weights)
        out = call(*leaves, slots)
        operator.weights = before
        leaves, pulled = [*leaves, *held], pull.to(out.device, out.dtype)
        return torch.autograd.grad(out, leaves, pulled, allow_unused=True, materialize_grads=True)

    weights = operator.weights
    exact = (t.double().cpu() for t in (x, base))
    wanted = gradients(*exact, weights, slots.cpu(), operator.wanted)
    plain = each(weights, torch.Tensor.float)
    found = gradients(x, base, plain, slots, operator.run)
    for mine, theirs in zip(found, wanted, strict=True):
        assert difference(mine, theirs) < times * MOST[x.dtype]
    again = gradients(x, base, plain, slots, operator.run)
    assert all(map(torch.equal, found, again))
    return found


@pytest.mark.parametrize("kind", (Bottleneck, Average))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frames", [1, 150])
def test_gradients(operators, kind, dtype, frames):
    """More tiles of frames than one are summed into a weight's gradient."""
    operator = kind(dtype, 64, 16)
    check_gradients(operator, *batch(operator, frames, [2, -1, 0, 2], dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_rows_far_from_zero(operators, dtype):
    operator = Bottleneck(dtype, 64, 16)
    x, base, slots = batch(operator, 20, [2, 0], dtype)
    check_gradients(operator, (x + 50.0), base, slots)


def test_gradients_without_an_adapter(operators):
    operator = Bottleneck(torch.float32, 64, 16)
    x, base, slots = batch(operator, 20, [-1, -1], torch.float32)
    mine, past, *weights = check_gradients(operator, x, base, slots)
    assert not mine.any() and past.any() and not any(map(torch.any, weights))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packed(operators, dtype):
    """One utterance is empty; frames of the longest need not be told."""
    operator = Bottleneck(dtype, 64, 16)
    lengths, slots = [5, 0, 1, 33], [2, 0, -1, 1]
    parts = [batch(operator, n, [s], dtype)[0][0] for n, s in zip(lengths, slots, strict=True)]
    offsets = torch.tensor([0, 5, 5, 6, 39], dtype=torch.int32, device=DEVICE)
    folded = fold(operator.on_device(), dtype)
    x, where = torch.cat(parts), torch.tensor(slots, dtype=torch.int32, device=DEVICE)
    packed = fused_bottleneck(x, folded, where, "gelu", 0.5, offsets=offsets)
    wanted = naive_bottleneck(
        x.double().cpu(), operator.weights, where.cpu(), "gelu", 0.5, None, offsets.cpu()
    )
    assert difference(packed, wanted) < MOST[dtype]
    apart = [
        fused_bottleneck(part[None], folded, where[i : i + 1], "gelu", 0.5)[0]
        for i, part in enumerate(parts)
        if len(part)
    ]
    assert difference(packed, torch.cat(apart)) < MOST[dtype] / 5


@pytest.mark.parametrize(
    ("dim", "width", "dtype", "activation", "words"),
    [
        (96, 16, torch.float32, "gelu", "states of 96 and 96 values: expected multiples of 64"),
        (4096, 16, torch.float32, "gelu", "2048 at most"),
        (64, 16, torch.float16, "gelu", "folded for torch.float16 do not fit states of torch.fl"),
        (64, 16, torch.float32, "tanh", "activation 'tanh': expected gelu, relu, silu, identity"),
    ],
)
def test_what_no_kernel_is_made_for_is_refused(operators, dim, width, dtype, activation, words):
    folded = fold(adapters(1, width, dim), dtype)
    with pytest.raises(ValueError, match=words):
        fused_bottleneck(torch.zeros(1, 2, dim), folded, torch.tensor([0]), activation)


def test_a_bottleneck_no_kernel_is_made_for(monkeypatch):
    x, slots = randn(1, 2, 64, seed=1).float(), torch.tensor([0])
    weights = adapters(1, 320, 64)
    folded = fold(weights, torch.float32)
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "triton")
    with pytest.raises(ValueError, match="a bottleneck of 512: Triton's kernels take 256 at most"):
        fused_bottleneck(x, folded, slots, "gelu")
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")
    found = fused_bottleneck(x, folded, slots, "gelu")
    assert difference(found, naive_bottleneck(x.double(), weights, slots, "gelu")) < 1e-5
