"""What is measured: each operator at the sizes of real encoders, and what people use instead.

A problem has systems that do the same: ours first, then plain PyTorch (``eager``), and peers. All
take the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import bottlenecks
import fusions
import others
import torch
from problems import Problem, Shape

CASES: dict[str, Callable[[Shape, torch.device, torch.dtype], Problem]] = {
    "bottleneck": bottlenecks.one,
    "mixed bottleneck": bottlenecks.many,
    "mixed bottleneck, packed": bottlenecks.packed,
    "average of 8": bottlenecks.average,
    "bottleneck, trained": bottlenecks.trained,
    "fusion of 8": fusions.attention,
    "fusion of 8, routed": fusions.routed,
    "fusion of 8, trained": fusions.trained,
    "LoRA and its layer": others.lora,
    "conformer": others.conformer,
    "bottleneck, 8 bits": bottlenecks.in_8_bits,
    "bottleneck, 1 bit": bottlenecks.in_1_bit,
    "log-mel": others.features,
}
