"""Hyper-adapters (Baziotis et al. 2022, section 3): one small network makes the adapters of all
languages from an embedding of the language and one of the site."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.base import Backbone
from speechadapt.data import Utterance
from speechadapt.errors import ConfigError, DataError
from speechadapt.files import replacing, write_json
from speechadapt.model import SpeechModel
from speechadapt.route import Route
from speechadapt.store import FILES, save_adapter, write_tensors

EMBEDDING = 32
"""Width of the embeddings of languages and sites."""


class HyperNetwork:
    """``make @ h / sqrt(width)`` for each tensor of an adapter, h a hidden layer over both
    embeddings, normalised.

    Each of h's elements has unit variance, so what is made has the variance that the adapter's own
    start would have, at any width: without the root, wide networks make large adapters and do not
    converge (section 3.3). Where an adapter starts with a constant it starts here with it too:
    nothing but zeros makes the up projection, and the adapters are the identity.

    With L languages, S sites and P parameters of an adapter at a site, a network of width W has
    ``W·P + 32·(L + S) + 65·W`` parameters; L adapters have ``L·S·P``.

    Args:
        like: A fresh adapter, whose tensors are the same at every site.
        languages: Names of the adapters to be made.
        width: Of the hidden layer.
        seed: Of the random start.

    Raises:
        ConfigError: Its sites differ in shape, or its family has tensors that are not trained, or
            that start as those of the base.
    """

    def __init__(self, like: Adapter, languages: Sequence[str], width: int, seed: int):
        if width < 1:
            raise ConfigError(f"--hyper {width}: give a width of 1 or more")
        shapes = [{k: t.shape for k, t in tensors.items()} for tensors in like.tensors.values()]
        alike = bool(shapes) and all(shape == shapes[0] for shape in shapes)
        family = like.family
        if not alike or family.copies or family.buffers & set(shapes[0]):
            raise ConfigError(
                f"--hyper makes adapters that are alike at all of their sites, and "
                f"{like.config.method} at {', '.join(like.config.points)} are not; use pfeiffer, "
                "houlsby or lora"
            )
        self.languages, self.sites, self.width = tuple(languages), tuple(like.tensors), width
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(*shape, generator=generator))

        self.tensors = {
            "language": normal(len(languages), EMBEDDING, std=1.0),
            "site": normal(len(self.sites), EMBEDDING, std=1.0),
            "hidden.weight": normal(width, 2 * EMBEDDING, std=(2 * EMBEDDING) ** -0.5),
            "hidden.bias": nn.Parameter(torch.zeros(width)),
        }
        self._starts: dict[str, Tensor] = {}
        for key, tensor in like.tensors[self.sites[0]].items():
            start = tensor.detach().cpu()
            constant = bool((start == start.flatten()[0]).all())
            self._starts[key] = start if constant else torch.zeros_like(start)
            std = 0.0 if constant else float(start.std())
            self.tensors[f"make.{key}"] = normal(start.numel(), width, std=std)

    def to(self, device: torch.device, dtype: torch.dtype) -> HyperNetwork:
        """Move every tensor, in place."""
        for tensor in self.tensors.values():
            tensor.data = tensor.data.to(device, dtype)
        self._starts = {key: t.to(device, dtype) for key, t in self._starts.items()}
        return self

    def make(self, language: str) -> dict[str, dict[str, Tensor]]:
        """The tensors of a language's adapter, by site and name."""
        t = self.tensors
        mine = t["language"][self.languages.index(language)].expand(len(self.sites), -1)
        hidden = F.linear(torch.cat([mine, t["site"]], 1), t["hidden.weight"], t["hidden.bias"])
        hidden = F.layer_norm(F.relu(hidden), (self.width,)) / self.width**0.5
        made = {
            key: start + F.linear(hidden, t[f"make.{key}"]).view(-1, *start.shape)
            for key, start in self._starts.items()
        }
        return {
            site: {key: values[index] for key, values in made.items()}
            for index, site in enumerate(self.sites)
        }


class HyperTarget:
    """Train a network that makes an adapter for each language; each utterance uses its own.

    What is stored are the adapters it has made, which cost what any adapter costs, and the network
    beside them.

    Args:
        model: Gets the adapters into its bank.
        config: Of the adapters.
        info: What all of them are known by, but for the language.
        languages: Of the data.
        default: Language of utterances that have none of their own.
        width: Of the network.
        seed: Of its start.

    Raises:
        ConfigError: Such adapters cannot be made.
    """

    base_is_frozen = True

    def __init__(
        self,
        model: SpeechModel,
        config: AdapterConfig,
        info: AdapterInfo,
        languages: Sequence[str],
        default: str | None,
        width: int,
        seed: int,
    ):
        sites = list(model.backbone.sites.values())
        self.adapters = {
            language: Adapter.fresh(
                language,
                config,
                family_of(config),
                sites,
                dataclasses.replace(info, language=language),
                seed,
            )
            for language in languages
        }
        self.default = default
        like = next(iter(self.adapters.values()))
        self.network = HyperNetwork(like, languages, width, seed)
        self.network.to(model.backbone.device, model.backbone.dtype)
        for adapter in self.adapters.values():
            model.bank.add(adapter)
        self._made(languages)

    def routes(self, utterances: Sequence[Utterance]) -> list[Route]:
        """Each utterance's language, after making the adapters of these anew."""
        routes = [utterance.language or self.default for utterance in utterances]
        for utterance, language in zip(utterances, routes, strict=True):
            if language not in self.adapters:
                raise DataError(
                    f"utterance {utterance.id}: its language is {language!r}, and adapters are "
                    f"made for {', '.join(self.adapters)}"
                )
        self._made([language for language in dict.fromkeys(routes) if language])
        return list(routes)

    def layers_below(self, backbone: Backbone) -> int | None:
        """Those before the adapters' first site."""
        return next(iter(self.adapters.values())).layers_below(backbone)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The network's."""
        return iter(self.network.tensors.items())

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same: what is made of them is made again."""
        return self.named_parameters()

    def train(self, mode: bool) -> None:
        """Gradients of the network, dropout of the adapters."""
        for _, parameter in self.named_parameters():
            parameter.requires_grad_(mode)
        for adapter in self.adapters.values():
            adapter.training = mode

    @property
    def files(self) -> tuple[str, ...]:
        """Those of the network, and of each adapter in a folder of its own."""
        adapters = (f"{language}/{file}" for language in self.adapters for file in FILES)
        return ("hyper.json", "hyper.safetensors", *adapters)

    def save(self, path: Path) -> None:
        """A folder with an adapter for each language, and the network."""
        self._made(list(self.adapters))
        with replacing(path, *self.files) as temporary:
            temporary.mkdir()
            for language, adapter in self.adapters.items():
                save_adapter(adapter, temporary / language)
            write_tensors(temporary / "hyper.safetensors", self.network.tensors)
            network = {"languages": self.network.languages, "sites": self.network.sites}
            write_json(temporary / "hyper.json", {**network, "width": self.network.width})

    def _made(self, languages: Sequence[str]) -> None:
        for language in languages:
            for site, tensors in self.network.make(language).items():
                # Not parameters of their own: gradients go through them into the network.
                self.adapters[language].tensors[site] = tensors  # type: ignore[assignment]
