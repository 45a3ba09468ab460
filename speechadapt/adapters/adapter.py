"""An adapter: a name, a config, and tensors for each site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.family import Family
from speechadapt.backbones.base import Backbone, Site
from speechadapt.errors import AdapterError, ConfigError
from speechadapt.heads.head import Head
from speechadapt.lowbit import rounded
from speechadapt.typed import check_types

HEAD = "head"
"""What stands before a head's tensors in place of a site."""


@dataclass
class AdapterInfo:
    """What is known of an adapter beside its tensors; it travels with it on disk.

    Attributes:
        kind: ``language``, ``noise`` or ``task``.
        language: Whisper's code (MMS: its own) of the language it was trained with, if any.
        trailing_silence: Seconds of silence the adapter was trained to need after the speech.
        base: Name of the frozen base, as it was loaded.
        fingerprint: Of the frozen base's weights.
        licence: Of the training data, in words.
        training: Data, command, commit, seconds, … as the trainer recorded them.
        results: Figures measured on held-out data.
    """

    kind: str = "language"
    language: str | None = None
    trailing_silence: float = 2.56
    base: str = ""
    fingerprint: str = ""
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "info")


class Adapter:
    """Tensors by canonical site, and how they are used.

    Attributes:
        bits: 8 or 1 while it is trained to be stored with so many bits a weight: its matrices are
            rounded wherever they are used, and gradients pass the rounding. None otherwise, also
            for an adapter that was read from such a file: its weights are round already.

    Args:
        name: How routes call it.
        config: Its family's configuration.
        family: The family itself.
        tensors: ``{site: {tensor name: tensor}}``.
        info: What else is known of it.
        head: What turns the states it makes into an answer, where the base has none for it.
    """

    def __init__(
        self,
        name: str,
        config: AdapterConfig,
        family: Family,
        tensors: Mapping[str, Mapping[str, Tensor]],
        info: AdapterInfo,
        head: Head | None = None,
    ):
        self.name = name
        self.config = config
        self.family = family
        self.info = info
        self.head = head
        self.training = False
        self.bits: int | None = None
        self.spilled = False  # its tensors are mapped from a file, or wait beside the GPU
        self.tensors: dict[str, dict[str, nn.Parameter]] = {
            site: {key: nn.Parameter(tensor, requires_grad=False) for key, tensor in values.items()}
            for site, values in tensors.items()
        }

    @classmethod
    def fresh(
        cls,
        name: str,
        config: AdapterConfig,
        family: Family,
        sites: Iterable[Site],
        info: AdapterInfo,
        seed: int = 0,
        head: Head | None = None,
    ) -> Adapter:
        """A new adapter that changes no output yet, its random parts drawn from ``seed``.

        Raises:
            ConfigError: The family cannot attach where the config says.
        """
        generator = torch.Generator().manual_seed(seed)
        config, chosen = _placed(config, family, sites)
        tensors = {site.name: family.init(config, site, generator) for site in chosen}
        return cls(name, config, family, tensors, info, head)

    @classmethod
    def blank(
        cls,
        name: str,
        config: AdapterConfig,
        family: Family,
        sites: Iterable[Site],
        info: AdapterInfo,
        head: Head | None = None,
    ) -> Adapter:
        """What :meth:`fresh` gives, its tensors without values, on ``meta``: to be read into.

        Raises:
            ConfigError: The family cannot attach where the config says.
        """
        config, chosen = _placed(config, family, sites)
        tensors = {site.name: family.blank(config, site) for site in chosen}
        return cls(name, config, family, tensors, info, head)

    def start_from(self, other: Adapter) -> None:
        """Copy another adapter's tensors, in place.

        Raises:
            ConfigError: It is configured otherwise.
        """
        self.check_same_config(other)
        with torch.no_grad():
            for (_, tensor), (_, value) in zip(
                self.named_tensors(), other.named_tensors(), strict=True
            ):
                tensor.copy_(value)

    def shapes_at(self, site: Site) -> dict[str, torch.Size]:
        """Shapes of the tensors that an adapter configured like this one has at ``site``.

        Raises:
            AdapterError: It cannot attach there.
        """
        if reason := _out_of_place(self.family, site) or self.family.refuses(self.config, site):
            raise AdapterError(f"adapter {self.name!r}: cannot attach to {site.name}: {reason}")
        return {key: t.shape for key, t in self.family.blank(self.config, site).items()}

    def check_same_config(self, other: Adapter) -> None:
        """Raise :class:`ConfigError` unless ``other`` is configured as this adapter is."""
        mine, theirs = (
            each.config.to_dict() | ({"head": each.head.to_dict()} if each.head else {})
            for each in (self, other)
        )
        if different := sorted(k for k in mine | theirs if mine.get(k) != theirs.get(k)):
            key = different[0]
            raise ConfigError(
                f"the two are configured differently: {key} is {mine.get(key)!r} in adapter "
                f"{self.name!r}, {theirs.get(key)!r} in {other.name!r}"
            )

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor by its key on disk, ``encoder.3.ffn.out/down.weight`` or ``head/…``."""
        for site, values in self.tensors.items():
            for key, tensor in values.items():
                yield f"{site}/{key}", tensor
        if self.head is not None:
            for key, tensor in self.head.tensors.items():
                yield f"{HEAD}/{key}", tensor

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor that is trained, by its key on disk."""
        for key, tensor in self.named_tensors():
            site, _, part = key.partition("/")
            if site == HEAD or part not in self.family.buffers:
                yield key, tensor

    def weights(self, site: str, device: torch.device) -> Mapping[str, Tensor]:
        """Its tensors at ``site`` as the family's operator takes them, on ``device``."""
        tensors: dict[str, Tensor] = {k: t.to(device) for k, t in self.tensors[site].items()}
        if self.bits is not None:
            tensors = {key: rounded(tensor, self.bits) for key, tensor in tensors.items()}
        return self.family.dense(self.config, tensors)

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(tensor.numel() for _, tensor in self.named_parameters())

    def layers_below(self, backbone: Backbone) -> int | None:
        """Encoder layers that run before its first site; None = what they read is changed already.

        A layer counts where all that the adapter does is to change its output at the end: that can
        be made good when the next one starts (:meth:`Backbone.resume`).

        Args:
            backbone: Where it attaches.
        """
        points: dict[str, set[str]] = {}
        for name in self.tensors:
            stack, place, *point = name.split(".", 2)
            if stack == "encoder":
                points.setdefault(place, set()).update(point)
        if "embed" in points:
            return None
        first = min((int(place) for place in points if place.isdecimal()), default=backbone.depth)
        return first + (points.get(str(first)) == {"out"})

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(tensor.numel() * tensor.element_size() for _, tensor in self.named_tensors())

    def train(self, mode: bool = True) -> Adapter:
        """Switch gradients and dropout on or off."""
        self.training = mode
        for _, tensor in self.named_parameters():
            tensor.requires_grad_(mode)
        return self

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Adapter:
        """Move every tensor, in place; integers keep their type."""
        for _, tensor in self.named_tensors():
            own = dtype if tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(device, own)
        return self


def _placed(
    config: AdapterConfig, family: Family, sites: Iterable[Site]
) -> tuple[AdapterConfig, list[Site]]:
    """Where an adapter attaches, and the config it then has."""
    chosen, reason = [], None
    for site in config.select(sites):
        reason = _out_of_place(family, site) or family.refuses(config, site)
        if reason is None:
            chosen.append(site)
        elif site.point in config.points:  # asked for by name, not by a pattern
            raise ConfigError(f"adapter config: {config.method} at {site.name}: {reason}")
    if not chosen and config.points:
        asked = {name: getattr(config, name) for name in ("points", "stacks", "top_layers")}
        given = (f"{name} {_spelt(value)}" for name, value in asked.items() if value is not None)
        raise ConfigError(
            f"adapter config: {config.method} attaches nowhere: {', '.join(given)} leave no place"
            + (f" ({reason})" if reason else "")
            + "; choose less narrowly"
        )
    # On disk an adapter names its stacks, so that it stays what it is on any backbone.
    return replace(config, stacks=tuple(dict.fromkeys(site.stack for site in chosen))), chosen


def _spelt(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _out_of_place(family: Family, site: Site) -> str | None:
    """Why a family of another kind cannot attach to ``site``; None = its kind is right."""
    if family.attends and site.attention is None:
        return "it attends to keys and values of its own, at attn.kv or cross.kv"
    if site.attention is not None and not family.attends:
        return "only prefixes attach to an attention itself"
    return None
