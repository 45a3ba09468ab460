"""What a run trains: one adapter, or (the yardstick) the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter
from speechadapt.backbones.base import CHECKPOINT_FILES, Backbone
from speechadapt.data import Utterance
from speechadapt.files import replacing
from speechadapt.model import SpeechModel
from speechadapt.route import Route
from speechadapt.store import FILES, save_adapter


class Target(Protocol):
    """Parameters that learn, the routes that use them, and how they are stored."""

    base_is_frozen: bool

    def routes(self, utterances: Sequence[Utterance]) -> list[Route]:
        """What each utterance uses, as the parameters are now."""
        ...

    def layers_below(self, backbone: Backbone) -> int | None:
        """Encoder layers that run before the first place where something learns; None = their input
        changes already."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What learns."""
        ...

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What learns, and what else changes while training (running statistics)."""
        ...

    def train(self, mode: bool) -> None:
        """Switch gradients on or off."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what :meth:`save` writes, as :func:`~speechadapt.files.check_target` has it."""
        ...

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all."""
        ...


class AdapterTarget:
    """Train one adapter on a frozen base."""

    base_is_frozen = True
    files = FILES

    def __init__(self, adapter: Adapter):
        self.adapter = adapter

    def routes(self, utterances: Sequence[Utterance]) -> list[Route]:
        """The adapter, for all."""
        return [self.adapter.name] * len(utterances)

    def layers_below(self, backbone: Backbone) -> int | None:
        """Those before the adapter's first site."""
        return self.adapter.layers_below(backbone)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the adapter trains."""
        return self.adapter.named_parameters()

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All of the adapter."""
        return self.adapter.named_tensors()

    def train(self, mode: bool) -> None:
        """Gradients and dropout."""
        self.adapter.train(mode)

    def save(self, path: Path) -> None:
        """The adapter's folder, in float32 or in as few bits as it was trained for: what
        evaluation saw is what is stored."""
        save_adapter(self.adapter, path, bits=self.adapter.bits)


class FullTarget:
    """Fine-tune every parameter: the baseline adapters are compared with, never the product."""

    base_is_frozen = False
    files = CHECKPOINT_FILES

    def __init__(self, model: SpeechModel):
        self.backbone = model.backbone

    def routes(self, utterances: Sequence[Utterance]) -> list[Route]:
        """No adapter."""
        return [None] * len(utterances)

    def layers_below(self, backbone: Backbone) -> None:
        """None: everything learns."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter but those that stay as they are."""
        return self.backbone.trainable()

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Nothing but what learns: running statistics stay as they are."""
        return self.named_parameters()

    def train(self, mode: bool) -> None:
        """Gradients, and dropout where the model's config has any."""
        if self.backbone.drops:
            self.backbone.model.train(mode)
            for module in self.backbone.model.modules():
                if isinstance(module, nn.BatchNorm1d):  # HuBERT may have one
                    module.eval()
        for _, parameter in self.named_parameters():
            parameter.requires_grad_(mode)

    def save(self, path: Path) -> None:
        """A transformers folder that loads like any other base."""
        with replacing(path, *CHECKPOINT_FILES) as temporary:
            self.backbone.save(self.backbone.model, temporary)


def snapshot(target: Target) -> dict[str, Tensor]:
    """Copies of everything that changes, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in target.named_tensors()}


def restore(target: Target, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`snapshot`."""
    with torch.no_grad():
        for name, tensor in target.named_tensors():
            tensor.copy_(tensors[name])
