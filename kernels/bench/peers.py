"""What people use instead of our operators: plain PyTorch, and PEFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt_kernels.bottleneck.stacked import BottleneckWeights


def apply(x: Tensor, w: BottleneckWeights, slot: int, scale: float) -> Tensor:
    """The adapter as one writes it."""
    assert w.norm_weight is not None and w.norm_bias is not None
    hidden = F.layer_norm(x, x.shape[-1:], w.norm_weight[slot], w.norm_bias[slot])
    hidden = F.gelu(F.linear(hidden, w.down[slot], w.down_bias[slot]))
    return x + scale * F.linear(hidden, w.up[slot], w.up_bias[slot])


def apply_gathered(x: Tensor, w: BottleneckWeights, places: Tensor, scale: float) -> Tensor:
    """Each utterance with weights gathered for it."""
    assert w.norm_weight is not None and w.norm_bias is not None
    hidden = F.layer_norm(x, x.shape[-1:])
    hidden = torch.addcmul(w.norm_bias[places, None], hidden, w.norm_weight[places, None])
    hidden = F.gelu(torch.baddbmm(w.down_bias[places, None], hidden, w.down[places].mT))
    return x + scale * torch.baddbmm(w.up_bias[places, None], hidden, w.up[places].mT)


def apply_routed(x: Tensor, w: BottleneckWeights, shares: Tensor, scale: float) -> Tensor:
    """The adapters' outputs, all in memory, in the shares of each frame, ``[..., adapters]``."""
    count = len(w.down)
    outputs = torch.stack([apply(x, w, slot, scale) - x for slot in range(count)], -2)
    return x + (shares[..., None] * outputs).sum(-2)


def peft_lora(
    layer: nn.Linear, down: Sequence[Tensor], up: Sequence[Tensor], slots: Tensor, scale: float
) -> Callable[[Tensor], tuple[Tensor, ...]] | None:
    """The same in PEFT, which has a layer of its own for each slice; None = it is not installed."""
    try:
        import peft
    except ImportError:
        return None
    count, rank, dim = down[0].shape
    names = [f"a{index}" for index in range(count)]
    holder = nn.ModuleDict()
    weights, biases = (t.chunk(len(down)) for t in (layer.weight, layer.bias))
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        slice_ = nn.Linear(dim, len(weight), device=weight.device, dtype=weight.dtype)
        slice_.weight.data, slice_.bias.data = weight, bias
        holder[f"layer{index}"] = slice_
    config = peft.LoraConfig(r=rank, lora_alpha=rank * scale, target_modules=list(holder))
    model: Any = peft.get_peft_model(holder, config, names[0])  # type: ignore[arg-type]
    for name in names[1:]:
        model.add_adapter(name, config)
    modules = [model.base_model.model[f"layer{index}"] for index in range(len(down))]
    for module, a, b in zip(modules, down, up, strict=True):
        for index, name in enumerate(names):
            module.lora_A[name].weight.data.copy_(a[index])
            module.lora_B[name].weight.data.copy_(b[index])
        module.to(layer.weight.dtype).eval()
    if count == 1:
        return lambda x: tuple(module(x) for module in modules)
    rows = [names[slot] for slot in slots.tolist()]
    return lambda x: tuple(module(x, adapter_names=rows) for module in modules)
