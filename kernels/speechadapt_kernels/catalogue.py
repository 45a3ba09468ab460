"""The operators there are, for those who ask which path each takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_STATES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Operator:
    """An operator of torch.

    Attributes:
        name: In ``torch.ops.speechadapt``.
        dtypes: Of the tensors its kernels take.
    """

    name: str
    dtypes: tuple[torch.dtype, ...] = _STATES


OPERATORS = (
    Operator("bottleneck"),  # and LoRA
    Operator("bottleneck_backward"),
    Operator("lowbit_bottleneck"),
    Operator("conformer"),
    Operator("fusion"),
    Operator("log_mel", (torch.float32,)),
)
