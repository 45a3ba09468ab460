"""What tests of operators share: devices, types, and how far apart two results are."""

from dataclasses import fields, is_dataclass, replace

import torch

from speechadapt_kernels.bottleneck.stacked import BottleneckWeights

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# ‖result - reference‖ / ‖reference‖ with a reference in float64 on the same rounded inputs.
MOST = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = [torch.float32, torch.float16]
if DEVICE.type == "cuda":
    DTYPES.append(torch.bfloat16)


def difference(result, reference):
    """Relative, over all values; NaN anywhere is infinite."""
    result, reference = (each.detach().double().cpu() for each in (result, reference))
    if not torch.isfinite(result).all():
        return float("inf")
    return float((result - reference).norm() / reference.norm().clamp(min=1e-30))


def randn(*shape, seed, dtype=torch.float64):
    """Normal numbers, the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def adapters(count, width, dim, norm=True, seed=0, dtype=torch.float64):
    """Stacked bottlenecks with random weights."""

    def made(*shape, seed):
        return randn(*shape, seed=seed).to(dtype)

    return BottleneckWeights(
        down=made(count, width, dim, seed=seed) / dim**0.5,
        down_bias=made(count, width, seed=seed + 1),
        up=made(count, dim, width, seed=seed + 2) / width**0.5,
        up_bias=made(count, dim, seed=seed + 3),
        norm_weight=1 + 0.1 * made(count, dim, seed=seed + 4) if norm else None,
        norm_bias=0.1 * made(count, dim, seed=seed + 5) if norm else None,
    )


def each(weights, change):
    """The same weights with ``change`` applied to every tensor, also of weights among them."""
    made = {}
    for name in (f.name for f in fields(weights)):
        value = getattr(weights, name)
        if isinstance(value, torch.Tensor):
            made[name] = change(value)
        elif is_dataclass(value):
            made[name] = each(value, change)
    return replace(weights, **made)


def leaves_of(weights):
    """The same weights, and their tensors, which ask for gradients."""
    leaves = []

    def leaf(tensor):
        leaves.append(tensor.detach().clone().requires_grad_(True))
        return leaves[-1]

    return each(weights, leaf), leaves


def states(*shape, seed, mean=0.0):
    """Random hidden states around a mean."""
    return randn(*shape, seed=seed) + mean
