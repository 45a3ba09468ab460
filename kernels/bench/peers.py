"""What people use instead of our operators: plain PyTorch, and PEFT."""

from __future__ import annotations

from collections.abc import Callable
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


def peft_lora(
    layer: nn.Linear, down: Tensor, up: Tensor, slots: Tensor, scale: float
) -> Callable[[Tensor], Tensor] | None:
    """The same in PEFT; None = it is not installed."""
    try:
        import peft
    except ImportError:
        return None
    rank = down.shape[1]
    names = [f"a{index}" for index in range(len(down))]
    holder = nn.ModuleDict({"layer": layer})
    config = peft.LoraConfig(r=rank, lora_alpha=rank * scale, target_modules=["layer"])
    model: Any = peft.get_peft_model(holder, config, names[0])  # type: ignore[arg-type]
    for name in names[1:]:
        model.add_adapter(name, config)
    module = model.base_model.model["layer"]
    for index, name in enumerate(names):
        module.lora_A[name].weight.data.copy_(down[index])
        module.lora_B[name].weight.data.copy_(up[index])
    module.to(layer.weight.dtype).eval()
    rows = [names[slot] for slot in slots.tolist()]
    if len(names) == 1:
        return lambda x: module(x)
    return lambda x: module(x, adapter_names=rows)
