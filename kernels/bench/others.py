"""Cases of LoRA, the conformer adapter and log-mel features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from floors import Work, cost
from peers import peft_lora
from problems import MIXED, SCALE, Problem, Shape, System, each, mixed, normal, states
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from speechadapt_kernels.conformer.folded import fold_conformer
from speechadapt_kernels.conformer.naive import naive_conformer
from speechadapt_kernels.conformer.operator import fused_conformer
from speechadapt_kernels.conformer.weights import ConformerWeights
from speechadapt_kernels.logmel import HOP, WINDOW, log_mel
from speechadapt_kernels.logmel.naive import naive_log_mel
from speechadapt_kernels.lora.naive import naive_lora
from speechadapt_kernels.lora.operator import fold_lora, fused_lora

RANK = 16  # of LoRA
KERNEL = 31  # of the conformer adapter's convolution


def lora(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """LoRA of rank 16 on queries and values, both slices of one layer, the layer included."""
    count, dim = min(MIXED, shape.batch), shape.dim
    layer = nn.Linear(dim, 2 * dim, device=device, dtype=dtype).requires_grad_(False)
    down = [normal(count, RANK, dim, device=device, seed=seed) / dim**0.5 for seed in (1, 2)]
    up = [normal(count, dim, RANK, device=device, seed=seed) / RANK**0.5 for seed in (3, 4)]
    folded = fold_lora(down, up, dtype)
    slots, some = mixed(shape, count, device), shape.places
    places = slots.long()
    plain = [(a.to(dtype), b.to(dtype)) for a, b in zip(down, up, strict=True)]

    def eager(x: Tensor) -> Tensor:
        mine = [torch.bmm(torch.bmm(x, a[places].mT), b[places].mT) for a, b in plain]
        return layer(x) + SCALE * torch.cat(mine, -1)

    def wanted(x: Tensor) -> tuple[Tensor]:
        part = x[some].double()
        base = F.linear(part, layer.weight.double(), layer.bias.double())
        exact = [[t.double() for t in each] for each in (down, up)]
        return (naive_lora(part, base, *exact, slots[some], SCALE),)

    systems: dict[str, System] = {
        "fused": lambda x: fused_lora(x, layer(x), folded, slots, SCALE),
        "eager": eager,
        "layer alone": layer,
    }
    peft = peft_lora(layer, down, up, slots, SCALE)
    if peft is not None:
        systems["PEFT"] = peft
    rows = shape.rows
    moved = (rows * 3 * dim + 2 * dim * dim + count * RANK * 4 * dim) * dtype.itemsize
    flops = 2 * rows * dim * 2 * dim + 2 * rows * RANK * 4 * dim
    return Problem(
        systems,
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        # PEFT has two layers.
        lambda made: (torch.cat(made, -1)[some] if isinstance(made, tuple) else made[some],),
        Work(moved, flops * cost(dtype)),
        dtype,
        peers=("PEFT",),
    )


def conformer(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """A conformer adapter with a causal convolution over 31 frames, and its state after the last.

    The bottleneck's width is a power of two: a state is then no wider.
    """
    dim, channels, some = shape.dim, shape.width, shape.places

    def made(*sizes: int, seed: int) -> Tensor:
        return normal(1, *sizes, device=device, seed=seed)

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
    folded, plain = fold_conformer(weights, dtype), each(weights, lambda t: t[0].to(dtype))
    slots = mixed(shape, 1, device)

    def gated(x: Tensor, w: ConformerWeights) -> Tensor:
        """What the convolution sees: so many zeros before it, ``[batch, channels, frames]``."""
        hidden = F.layer_norm(x, (dim,), w.norm_weight, w.norm_bias)
        hidden = F.glu(F.linear(hidden, w.down, w.down_bias), -1).mT
        return F.pad(hidden, (KERNEL - 1, 0))

    def eager(x: Tensor) -> tuple[Tensor, Tensor]:
        w, seen = plain, gated(x, plain)
        hidden = F.conv1d(seen, w.conv[:, None], w.conv_bias, groups=channels).mT
        hidden = F.silu(F.layer_norm(hidden, (channels,), w.inner_weight, w.inner_bias))
        return x + SCALE * F.linear(hidden, w.up, w.up_bias), seen[..., 1 - KERNEL :].mT

    def wanted(x: Tensor) -> tuple[Tensor, Tensor]:
        part, exact = x[some].double(), each(weights, Tensor.double)
        state = gated(part, each(exact, lambda t: t[0]))[..., 1 - KERNEL :].mT
        return naive_conformer(part, part, exact, slots[some], SCALE), state

    flops = 2 * shape.rows * channels * (3 * dim + KERNEL)
    return Problem(
        {"fused": lambda x: fused_conformer(x, x, folded, slots, SCALE), "eager": eager},
        lambda seed: (states(shape, device, dtype, seed),),
        wanted,
        lambda made: (made[0][some], made[1][some]),
        Work(2 * shape.rows * dim * dtype.itemsize, flops * cost(dtype)),
        dtype,
    )


def features(shape: Shape, device: torch.device, dtype: torch.dtype) -> Problem:
    """Whisper's log-mel features of as much sound as the encoder makes ``frames`` positions of.

    In float32 whatever the states are.
    """
    del dtype
    frames, some = 2 * shape.frames, shape.places
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

    def wanted(waves: Tensor) -> tuple[Tensor]:
        return (naive_log_mel(waves[some].cpu(), lengths[some].cpu(), filters.cpu(), frames),)

    rows, single = shape.batch * frames, torch.float32
    flops = rows * (4 * 208 * 224 + 2 * 224 * 128)
    return Problem(
        {"fused": lambda waves: log_mel(waves, lengths, filters, frames), "eager": eager},
        lambda seed: (0.1 * normal(shape.batch, frames * HOP, device=device, seed=seed),),
        wanted,
        lambda made: (made[some],),
        Work(4 * rows * (HOP + 3 * bins), flops * cost(single)),
        single,
    )
