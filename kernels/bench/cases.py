"""What is measured: each operator at the sizes of real encoders, and what people use instead.

A problem has systems that do the same: ours first, then plain PyTorch (``eager``), and peers. All
take the same tensors, of which there are as many as needed to find none of them in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from floors import Work
from peers import apply, apply_gathered, peft_lora
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from speechadapt_kernels.bottleneck.folded import fold
from speechadapt_kernels.bottleneck.naive import naive_bottleneck
from speechadapt_kernels.bottleneck.operator import fused_bottleneck
from speechadapt_kernels.bottleneck.stacked import BottleneckWeights
from speechadapt_kernels.conformer.folded import fold_conformer
from speechadapt_kernels.conformer.naive import naive_conformer
from speechadapt_kernels.conformer.operator import fused_conformer
from speechadapt_kernels.conformer.weights import ConformerWeights
from speechadapt_kernels.fusion.folded import fold_fusion
from speechadapt_kernels.fusion.naive import naive_fusion
from speechadapt_kernels.fusion.operator import fused_fusion
from speechadapt_kernels.fusion.weights import FusionWeights
from speechadapt_kernels.logmel import HOP, WINDOW, log_mel
from speechadapt_kernels.logmel.naive import naive_log_mel
from speechadapt_kernels.lora.operator import fold_lora, fused_lora
from speechadapt_kernels.lowbit.folded import fold_lowbit
from speechadapt_kernels.lowbit.naive import naive_lowbit
from speechadapt_kernels.lowbit.operator import fused_lowbit
from speechadapt_kernels.plan import tiles_for

System = Callable[..., Any]
# Width of the states and of the bottleneck, and positions of what they hear.
MODELS = {
    "whisper-base": (512, 32, (50, 250, 1500)),
    "whisper-small, wav2vec2-base": (768, 64, (50, 250, 1500)),
    "whisper-large-v3": (1280, 64, (50, 250, 1500)),
    "AST": (768, 64, (1214,)),
}
FUSED = 8  # adapters of a fusion
MIXED = 16  # adapters of a mixed batch, fewer where the batch is smaller
RANK = 16  # of LoRA
KERNEL = 31  # of the conformer adapter's convolution
SCALE = 0.5


@dataclass(frozen=True)
class Shape:
    """Of one case.

    Attributes:
        model: Key of :data:`MODELS`.
        batch: Utterances.
        frames: Positions of each.
        bottleneck: None = as wide as the model's.
    """

    model: str
    batch: int
    frames: int
    bottleneck: int | None = None

    @property
    def dim(self) -> int:
        """Width of the states."""
        return MODELS[self.model][0]

    @property
    def width(self) -> int:
        """Width of the bottleneck."""
        return self.bottleneck or MODELS[self.model][1]


@dataclass
class Problem:
    """One case, on a device.

    Attributes:
        systems: By name, ours first: each takes the tensors of ``make`` and gives its result.
        make: New random tensors, from a seed.
        wanted: What the definition gives for the first and the last utterance of such tensors, in
            float64.
        found: The same of what a system gave.
        work: What has to be done.
        trains: It has a backward in it, which PyTorch's compiler does not take whole.
        peers: Those of the systems that are not ours and need not stand a CUDA graph.
    """

    systems: dict[str, System]
    make: Callable[[int], tuple[Tensor, ...]]
    wanted: Callable[..., Tensor]
    work: Work
    found: Callable[[Any], Tensor] = field(default=lambda made: made[[0, -1]])
    trains: bool = False
    peers: tuple[str, ...] = ()


def bottleneck(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """One adapter for the whole batch."""
    return _bottleneck(shape, device, dtype, 1)


def mixed_bottleneck(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Up to 16 adapters in one batch; plain PyTorch gathers the weights of each utterance."""
    return _bottleneck(shape, device, dtype, min(MIXED, shape.batch))


def _bottleneck(shape: Shape, device: torch.device, dtype: torch.dtype, count: int) -> Problem:
    weights = _adapters(shape, count, device)
    plain = _each(weights, lambda t: t.to(dtype))
    folded = fold(weights, dtype)
    slots = torch.arange(shape.batch, device=device, dtype=torch.int32) % count
    places = slots.long()

    def ours(x: Tensor) -> Tensor:
        return fused_bottleneck(x, folded, slots, "gelu", SCALE)

    def eager(x: Tensor) -> Tensor:
        return apply(x, plain, 0, SCALE) if count == 1 else apply_gathered(x, plain, places, SCALE)

    def wanted(x: Tensor) -> Tensor:
        exact = _each(weights, Tensor.double)
        return naive_bottleneck(x[[0, -1]].double(), exact, slots[[0, -1]], "gelu", SCALE)

    return Problem(
        {"fused": ours, "eager": eager},
        lambda seed: (_states(shape, device, dtype, seed),),
        wanted,
        _bottleneck_work(shape, device, dtype, count, "bottleneck.forward"),
    )


def trained_bottleneck(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """One adapter's forward and backward: gradients of the states and of its weights."""
    weights = _each(_adapters(shape, 1, device), lambda t: t.requires_grad_(True))
    leaves = [value for f in fields(weights) if (value := getattr(weights, f.name)) is not None]
    slots = torch.zeros(shape.batch, device=device, dtype=torch.int32)

    def gradients(call: System) -> System:
        def run(x: Tensor, pull: Tensor) -> Tensor:
            x.requires_grad_(True)
            return torch.autograd.grad(call(x), [x, *leaves], pull)[0]

        return run

    def wanted(x: Tensor, pull: Tensor) -> Tensor:
        exact = _each(weights, lambda t: t.detach().double())
        part = x[[0, -1]].detach().double().requires_grad_(True)
        made = naive_bottleneck(part, exact, slots[[0, -1]], "gelu", SCALE)
        return torch.autograd.grad(made, part, pull[[0, -1]].double())[0]

    def fused(x: Tensor) -> Tensor:
        return fused_bottleneck(x, fold(weights, dtype), slots, "gelu", SCALE)

    once = _bottleneck_work(shape, device, dtype, 1, "bottleneck.forward")
    moved = 7 * _rows(shape) * shape.dim * dtype.itemsize  # two forward, five backward
    return Problem(
        {
            "fused": gradients(
                lambda x: fused_bottleneck(x, fold(weights, dtype), slots, "gelu", SCALE)
            ),
            "eager": gradients(lambda x: apply(x, _each(weights, lambda t: t.to(dtype)), 0, SCALE)),
        },
        lambda seed: (
            _states(shape, device, dtype, seed),
            _states(shape, device, dtype, seed + 1),
        ),
        wanted,
        Work(moved, once.flops * 7 // 2),
        trains=True,
    )


def fusion(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """AdapterFusion over eight adapters."""
    weights = _fusion_weights(shape, device)
    folded = fold_fusion(weights, dtype, SCALE)
    plain = _each(
        replace(weights, adapters=_each(weights.adapters, lambda t: t.to(dtype))),
        lambda t: t.to(dtype),
    )

    def wanted(x: Tensor) -> Tensor:
        exact = _each(
            replace(weights, adapters=_each(weights.adapters, Tensor.double)), Tensor.double
        )
        part = x[[0, -1]].double()
        return naive_fusion(part, part, exact, "gelu", SCALE)[0]

    rows, size = _rows(shape), dtype.itemsize
    inside = FUSED * shape.width
    moved = (2 * rows * shape.dim + 3 * inside * shape.dim + 2 * rows * inside) * size
    return Problem(
        {
            "fused": lambda x: fused_fusion(x, x, folded, "gelu"),
            "eager": lambda x: naive_fusion(x, x, plain, "gelu", SCALE),
        },
        lambda seed: (_states(shape, device, dtype, seed),),
        wanted,
        Work(moved, 6 * rows * inside * shape.dim),
        found=lambda made: made[0][[0, -1]],
    )


def lora(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """LoRA of rank 16 beside a layer twice as wide (queries and values), the layer included."""
    count, dim = min(MIXED, shape.batch), shape.dim
    layer = nn.Linear(dim, 2 * dim, device=device, dtype=dtype).requires_grad_(False)
    down = _random(count, RANK, dim, device=device, seed=1) / dim**0.5
    up = _random(count, 2 * dim, RANK, device=device, seed=2) / RANK**0.5
    folded = fold_lora([down], [up], dtype)
    slots = torch.arange(shape.batch, device=device, dtype=torch.int32) % count
    places, a, b = slots.long(), down.to(dtype), up.to(dtype)

    def eager(x: Tensor) -> Tensor:
        mine = torch.bmm(torch.bmm(x, a[places].mT), b[places].mT)
        return layer(x) + SCALE * mine

    def wanted(x: Tensor) -> Tensor:
        part = x[[0, -1]].double()
        base = F.linear(part, layer.weight.double(), layer.bias.double())
        ends = places[[0, -1]]
        return base + SCALE * (part @ down[ends].double().mT @ up[ends].double().mT)

    systems: dict[str, System] = {
        "fused": lambda x: fused_lora(x, layer(x), folded, slots, SCALE),
        "eager": eager,
        "layer alone": layer,
    }
    peft = peft_lora(layer, down, up, slots, SCALE)
    if peft is not None:
        systems["PEFT"] = peft
    rows, size = _rows(shape), dtype.itemsize
    moved = (rows * 3 * dim + 2 * dim * dim + count * RANK * 3 * dim) * size
    return Problem(
        systems,
        lambda seed: (_states(shape, device, dtype, seed),),
        wanted,
        Work(moved, 2 * rows * dim * 2 * dim + 2 * rows * RANK * 3 * dim),
        peers=("PEFT",),
    )


def conformer(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """A conformer adapter with a causal convolution over 31 frames."""
    dim, channels = shape.dim, shape.width

    def made(*sizes: int, seed: int) -> Tensor:
        return _random(1, *sizes, device=device, seed=seed)

    weights = ConformerWeights(
        norm_weight=1 + 0.1 * made(dim, seed=1),
        norm_bias=0.1 * made(dim, seed=2),
        down=made(2 * channels, dim, seed=3) / dim**0.5,
        down_bias=0.1 * made(2 * channels, seed=4),
        conv=made(channels, KERNEL, seed=5) / KERNEL**0.5,
        conv_bias=0.1 * made(channels, seed=6),
        inner_weight=1 + 0.1 * made(channels, seed=7),
        inner_bias=0.1 * made(channels, seed=8),
        mean=None,
        var=None,
        up=made(dim, channels, seed=9) / channels**0.5,
        up_bias=0.1 * made(dim, seed=10),
    )
    folded = fold_conformer(weights, dtype)
    w = _each(weights, lambda t: t[0].to(dtype))
    slots = torch.zeros(shape.batch, device=device, dtype=torch.int32)

    def eager(x: Tensor) -> Tensor:
        hidden = F.layer_norm(x, (dim,), w.norm_weight, w.norm_bias)
        hidden = F.glu(F.linear(hidden, w.down, w.down_bias), -1).mT
        hidden = F.conv1d(
            F.pad(hidden, (KERNEL - 1, 0)), w.conv[:, None], w.conv_bias, groups=channels
        ).mT
        hidden = F.silu(F.layer_norm(hidden, (channels,), w.inner_weight, w.inner_bias))
        return x + SCALE * F.linear(hidden, w.up, w.up_bias)

    def wanted(x: Tensor) -> Tensor:
        part, exact = x[[0, -1]].double(), _each(weights, Tensor.double)
        return naive_conformer(part, part, exact, slots[[0, -1]], SCALE)

    rows = _rows(shape)
    return Problem(
        {"fused": lambda x: fused_conformer(x, x, folded, slots, SCALE)[0], "eager": eager},
        lambda seed: (_states(shape, device, dtype, seed),),
        wanted,
        Work(2 * rows * dim * dtype.itemsize, 2 * rows * channels * (3 * dim + KERNEL)),
    )


def lowbit_8(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """A bottleneck with matrices in 8 bits; plain PyTorch has the same in the states' type."""
    return _lowbit(shape, device, dtype, 8)


def lowbit_1(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """The same in 1 bit."""
    return _lowbit(shape, device, dtype, 1)


def _lowbit(shape: Shape, device: torch.device, dtype: torch.dtype, bits: int) -> Problem:
    weights = _adapters(shape, 1, device)
    folded = fold_lowbit(weights, bits)
    plain = _each(weights, lambda t: t.to(dtype))
    slots = torch.zeros(shape.batch, device=device, dtype=torch.int32)

    def wanted(x: Tensor) -> Tensor:
        exact = _each(weights, Tensor.double)
        return naive_lowbit(x[[0, -1]].double(), exact, bits, slots[[0, -1]], "gelu", SCALE)

    rows, matrix = _rows(shape), shape.dim * shape.width
    return Problem(
        {
            "fused": lambda x: fused_lowbit(x, folded, slots, "gelu", SCALE),
            "eager": lambda x: apply(x, plain, 0, SCALE),
        },
        lambda seed: (_states(shape, device, dtype, seed),),
        wanted,
        Work(2 * rows * shape.dim * dtype.itemsize + 2 * matrix * bits // 8, 4 * rows * matrix),
    )


def features(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Whisper's log-mel features of as much sound as the encoder makes ``frames`` positions of."""
    frames = 2 * shape.frames
    bins = 128 if shape.model.endswith("large-v3") else 80
    bank = mel_filter_bank(
        num_frequency_bins=WINDOW // 2 + 1,
        num_mel_filters=bins,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=16_000,
        norm="slaney",
        mel_scale="slaney",
    )
    filters = torch.from_numpy(bank.T).float().contiguous().to(device)
    window = torch.hann_window(WINDOW, device=device)
    lengths = torch.full((shape.batch,), frames, device=device)

    def eager(waves: Tensor) -> Tensor:
        """As transformers' extractor does it."""
        spectrum = torch.stft(waves, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
        energies = (filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        loudest = energies.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(energies, loudest - 8.0) + 4.0) / 4.0

    def wanted(waves: Tensor) -> Tensor:
        ends = waves[[0, -1]].cpu()
        return naive_log_mel(ends, lengths[[0, -1]].cpu(), filters.cpu(), frames)

    rows = shape.batch * frames
    return Problem(
        {"fused": lambda waves: log_mel(waves, lengths, filters, frames), "eager": eager},
        lambda seed: (0.1 * _random(shape.batch, frames * HOP, device=device, seed=seed),),
        wanted,
        Work(4 * rows * (HOP + 3 * bins), rows * (4 * 208 * 224 + 2 * 224 * 128)),
    )


CASES: dict[str, Callable[[Shape, torch.device, torch.dtype], Problem]] = {
    "bottleneck": bottleneck,
    "mixed bottleneck": mixed_bottleneck,
    "bottleneck, trained": trained_bottleneck,
    "fusion of 8": fusion,
    "LoRA and its layer": lora,
    "conformer": conformer,
    "bottleneck, 8 bits": lowbit_8,
    "bottleneck, 1 bit": lowbit_1,
    "log-mel": features,
}


def _bottleneck_work(
    shape: Shape, device: torch.device, dtype: torch.dtype, count: int, kernel: str
) -> Work:
    size, matrix = dtype.itemsize, shape.dim * shape.width
    tiles = tiles_for(kernel, device, shape.width, shape.frames, (shape.dim,))
    return Work(
        (2 * _rows(shape) * shape.dim + 2 * count * matrix) * size,
        4 * _rows(shape) * matrix,
        shape.batch * -(-shape.frames // tiles.frames),
        (2 * matrix + 3 * tiles.frames * shape.dim) * size,
    )


def _adapters(shape: Shape, count: int, device: torch.device) -> BottleneckWeights:
    def made(*sizes: int, seed: int) -> Tensor:
        return _random(count, *sizes, device=device, seed=seed)

    dim, width = shape.dim, shape.width
    return BottleneckWeights(
        down=made(width, dim, seed=1) / dim**0.5,
        down_bias=0.1 * made(width, seed=2),
        up=made(dim, width, seed=3) / width**0.5,
        up_bias=0.1 * made(dim, seed=4),
        norm_weight=1 + 0.1 * made(dim, seed=5),
        norm_bias=0.1 * made(dim, seed=6),
    )


def _fusion_weights(shape: Shape, device: torch.device) -> FusionWeights:
    def square(seed: int) -> Tensor:
        return _random(shape.dim, shape.dim, device=device, seed=seed) / shape.dim**0.5

    return FusionWeights(
        adapters=_adapters(shape, FUSED, device),
        query=square(11) / shape.dim**0.25,
        query_bias=0.1 * _random(shape.dim, device=device, seed=12),
        key=square(13) / shape.dim**0.25,
        value=square(14),
    )


def _each(weights: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same dataclass with ``change`` applied to its tensors."""
    values = {f.name: getattr(weights, f.name) for f in fields(weights)}
    return replace(weights, **{n: change(v) for n, v in values.items() if isinstance(v, Tensor)})


def _rows(shape: Shape) -> int:
    return shape.batch * shape.frames


def _states(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    return _random(shape.batch, shape.frames, shape.dim, device=device, seed=seed).to(dtype)


def _random(*sizes: int, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*sizes, generator=generator, device=device)
