"""What every frozen backbone offers: its sites, and from waves to encoder states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from speechadapt.features import Features
from speechadapt.heads.head import Head

CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What :meth:`Backbone.save` may write with any release of transformers."""


@dataclass(frozen=True)
class Attention:
    """How an attention makes its keys and values.

    Attributes:
        heads: Number of heads.
        key: Projection of states to keys.
        value: Projection of states to values.
        norm: What states pass before the projections; None = nothing.
    """

    heads: int
    key: nn.Linear
    value: nn.Linear
    norm: nn.Module | None


@dataclass(frozen=True)
class Site:
    """A place where an adapter may attach.

    Attributes:
        name: Canonical name, e.g. ``encoder.3.ffn.out``; the key of the adapter's tensors on disk.
        leaf: The module whose output (or input) the adapter changes; of ``out``, a whole layer.
        dim: Width of the leaf's output.
        input_dim: Width of the leaf's input.
        entry: The module that opens the sub-layer which the leaf ends, None where the leaf ends
            none. Its input is the residual stream.
        pre_norm: Whether the entry is a normalisation, whose output the sub-layer then reads, or
            the sub-layer's first projection, which reads the residual stream itself.
        attention: Where the leaf is an attention, whose keys and values an adapter here adds to.
        resumed: Of an encoder layer, an identity that stands for it when a pass starts behind it
            (:meth:`Backbone.ahead`): adapters here then change its output.
    """

    name: str
    leaf: nn.Module
    dim: int
    input_dim: int
    entry: nn.Module | None = None
    pre_norm: bool = True
    attention: Attention | None = None
    resumed: nn.Module | None = None

    @property
    def stack(self) -> str:
        """``encoder`` or ``decoder``."""
        return self.name.split(".", 1)[0]

    @property
    def layer(self) -> int | None:
        """Index of the layer inside its stack; None for a place outside the layers."""
        index = self.name.split(".")[1]
        return int(index) if index.isdecimal() else None

    @property
    def point(self) -> str:
        """The place inside the layer, e.g. ``ffn.out``, or outside the layers, e.g. ``embed``."""
        return self.name.split(".", 1 if self.layer is None else 2)[-1]


@dataclass(frozen=True)
class Encoded:
    """Encoder output of a batch.

    Attributes:
        states: ``[batch, positions, dim]``.
        lengths: Valid positions of each utterance, ``[batch]``.
        layers: What the first layer reads, then what each layer makes of it, the last as
            ``states`` has it; None where nobody asked for them.
    """

    states: Tensor
    lengths: Tensor
    layers: tuple[Tensor, ...] | None = None

    def rows(self, index: Tensor) -> Encoded:
        """The utterances at ``index`` (``[n]``), without positions that none of them uses."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        layers = self.layers and tuple(states[index, :longest] for states in self.layers)
        return Encoded(self.states[index, :longest], lengths, layers)

    @property
    def key_lengths(self) -> Tensor | None:
        """Lengths for the attention mask; None when no position is padding."""
        return None if bool((self.lengths == self.states.shape[1]).all()) else self.lengths


class Backbone(ABC):
    """A frozen transformers model and the places where adapters attach.

    Args:
        model: Goes into ``eval()``; none of its parameters ever changes.
        name: As the user gave it: a hub id or a folder.
        fingerprint: Tells its weights from those of another base.
        sites: Where adapters attach.

    Attributes:
        frozen_trailing_silence: Seconds of silence after the speech that the base needs without
            an adapter.
        position_seconds: Seconds between encoder positions.
        head: What the checkpoint brings to turn states into an answer; None = nothing, or a decoder
            of its own.
        fixed: Parts of the names of parameters that stay as they are, or that nothing reads, when
            the whole model is trained.
        best_adapter: The preset with the lowest error on this kind of base in docs/adapters.md.
    """

    best_adapter: ClassVar[str]
    frozen_trailing_silence: ClassVar[float] = 0.0
    position_seconds: float = 0.02
    head: Head | None = None
    fixed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: PreTrainedModel, name: str, fingerprint: str, sites: Iterable[Site]):
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.fingerprint = fingerprint
        self.sites = {site.name: site for site in sites}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def width(self) -> int:
        """Width of the encoder's states."""
        return next(site.dim for site in self.sites.values() if site.point == "out")

    @property
    def depth(self) -> int:
        """Layers of the encoder."""
        encoder = (site for site in self.sites.values() if site.stack == "encoder")
        return 1 + max(site.layer for site in encoder if site.layer is not None)

    @property
    def drops(self) -> bool:
        """Whether the model asks for dropout of units or layers while all of it is trained."""
        values = self.model.config.to_dict().items()
        return any(isinstance(p, float) and p > 0 for name, p in values if "drop" in name)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained when the whole model is, by name."""
        for name, parameter in self.model.named_parameters():
            if not any(part in name for part in self.fixed):
                yield name, parameter

    @property
    def parameter_count(self) -> int:
        """Parameters of the frozen base."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        torch.nn.Module.to(self.model, device)
        for tensor in self.head.tensors.values() if self.head else ():
            tensor.data = tensor.data.to(device)

    def save(self, model: nn.Module, folder: Path, head: Head | None = None) -> None:
        """Write a changed copy of the model as a transformers checkpoint, whole.

        Args:
            model: Same architecture as the frozen one.
            folder: Where to; it is made.
            head: What the model's last layer is; None = the base's own head, if it has one.
        """
        assert isinstance(model, PreTrainedModel)
        model.save_pretrained(folder)

    def module_sites(self) -> dict[str, Site]:
        """Linear layers with a site, by the paths other libraries call them in this model."""
        paths = {id(module): path for path, module in self.model.named_modules()}
        return {
            paths[id(site.leaf)]: site
            for site in self.sites.values()
            if isinstance(site.leaf, nn.Linear)
        }

    @abstractmethod
    def features(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Features:
        """What the encoder reads.

        Args:
            waves: Mono float32 arrays at 16 kHz, ``[samples]`` each.
            trailing_silence: Seconds of silence after each wave; None = as the base was trained.
        """

    @abstractmethod
    def positions(self, lengths: Tensor) -> Tensor:
        """Encoder positions of utterances with features of these lengths, ``[batch]``."""

    @abstractmethod
    def encode(self, features: Features, layers: bool = False) -> Encoded:
        """Run the encoder. Must run inside :func:`speechadapt.call.running` with a call of
        :meth:`key_lengths` when utterances differ in length.

        Args:
            features: What :meth:`features` made.
            layers: Whether the states of all layers are wanted too.
        """

    def ahead(self, features: Features, layers: int) -> Features:
        """Features behind the first layers, where no adapter changes these: made once and kept,
        they spare every later pass so much.

        Args:
            features: What :meth:`features` made, without padding.
            layers: So many at most; a backbone that cannot be divided there stops before.
        """
        return features

    def resume(self, features: Features) -> Tensor:
        """What the layer behind those that :meth:`ahead` ran reads, ``[batch, positions, dim]``:
        their states, changed by the adapters at the end of the last of them.

        Args:
            features: What :meth:`ahead` made, ``layers`` not None.
        """
        states = features.values.mT
        end = self.sites.get(f"encoder.{(features.layers or 0) - 1}.out")
        return states if end is None or end.resumed is None else end.resumed(states)

    def positions_in(self, seconds: float) -> float:
        """Encoder positions that so many seconds of audio take."""
        return seconds / self.position_seconds

    def key_lengths(self, features: Features) -> Tensor | None:
        """Valid encoder positions of each utterance, ``[batch]``; None when none is padding."""
        if bool((features.lengths == features.values.shape[-1]).all()):
            return None
        return features.lengths if features.layers is not None else self.positions(features.lengths)


def module_at(module: nn.Module, *paths: str) -> nn.Module:
    """The first of ``paths`` that there is: releases of transformers call the same leaf otherwise.

    Raises:
        AttributeError: None of them; the sentence names what was tried.
    """
    for path in paths:
        try:
            return module.get_submodule(path)
        except AttributeError:
            continue
    raise AttributeError(f"{type(module).__name__} has none of {', '.join(paths)}")


def linear_at(module: nn.Module, *paths: str) -> nn.Linear:
    """The linear layer at the first of ``paths`` that there is.

    Raises:
        AttributeError: There is none.
        TypeError: Something else is there (a release of transformers that the tables do not know).
    """
    leaf = module_at(module, *paths)
    if not isinstance(leaf, nn.Linear):
        raise TypeError(f"{paths[0]} is a {type(leaf).__name__}, expected a Linear")
    return leaf
