"""SpeechModel: a frozen backbone and the adapters that ride on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from speechadapt.adapters.adapter import Adapter
from speechadapt.backbones.base import Backbone, Encoded
from speechadapt.backbones.loading import load_backbone
from speechadapt.backbones.weights import checksum
from speechadapt.bank import AdapterBank
from speechadapt.call import Call, running
from speechadapt.errors import RouteError
from speechadapt.heads.head import Head
from speechadapt.route import Route, adapter_names
from speechadapt.sharing import find_adapter
from speechadapt.store import load_adapter

B = TypeVar("B", bound=Backbone)


class SpeechModel(Generic[B]):
    """One frozen base in memory, any number of adapters, a route for each utterance.

    Example:
        >>> model = speechadapt.load("openai/whisper-base", adapters=["exp/be"])
        >>> encoded = model.encode([wave], routes=["be"])
    """

    def __init__(self, backbone: B):
        self.backbone = backbone
        self.bank = AdapterBank(backbone)

    def load_adapter(self, folder: str | Path) -> Adapter:
        """Read an adapter from its folder and make it routable.

        Raises:
            AdapterError: The folder is damaged, or the adapter belongs to another base.
        """
        return self.bank.add(load_adapter(folder, self.backbone))

    def trailing_silence(self, routes: Sequence[Route]) -> float:
        """Seconds of silence that this batch needs after the speech: the largest of its routes."""
        adapters = [self.bank[name] for route in routes for name in adapter_names(route)]
        needs = [adapter.info.trailing_silence for adapter in adapters]
        if None in routes:
            needs.append(self.backbone.frozen_trailing_silence)
        return max(needs)

    def language(self, route: Route) -> str | None:
        """Whisper's code of the language that the adapters of a route were trained with, if any."""
        languages = [self.bank[name].info.language for name in adapter_names(route)]
        return next((language for language in languages if language), None)

    def head(self, route: Route) -> Head | None:
        """What turns the states of an utterance into an answer.

        The head of the last adapter of the route that has one, else the base's own; None = none, or
        Whisper's decoder.
        """
        heads = [self.bank[name].head for name in adapter_names(route)]
        return next((head for head in reversed(heads) if head), self.backbone.head)

    def call(self, routes: Sequence[Route], encoded: Encoded) -> Call:
        """What decoder passes over ``encoded`` need."""
        _check_count(routes, len(encoded.states))
        return self.bank.call(routes, encoded.key_lengths)

    def encode(
        self,
        waves: Sequence[np.ndarray],
        routes: Sequence[Route],
        trailing_silence: float | None,
    ) -> Encoded:
        """Encoder output of a batch in which every utterance has its own route.

        Args:
            waves: Mono float32 at 16 kHz, ``[samples]`` each.
            routes: One for each wave.
            trailing_silence: Seconds after each wave; None = as the base was trained (Whisper: up
                to 30 s).

        Returns:
            States ``[batch, positions, dim]`` and each utterance's valid positions; those of all
            layers too where a head of the routes reads them.

        Raises:
            RouteError: A route names an adapter that is not loaded, or there are more or fewer
                routes than waves.
        """
        _check_count(routes, len(waves))
        features = self.backbone.features(waves, trailing_silence)
        call = self.bank.call(routes, self.backbone.key_lengths(features))
        with torch.inference_mode(), running(call):
            return self.backbone.encode(features, call.reads_layers)

    def checksum(self) -> str:
        """SHA-256 over every tensor of the frozen base; training must not change it."""
        return checksum(self.backbone.model)


def _check_count(routes: Sequence[Route], utterances: int) -> None:
    """Raise :class:`RouteError` unless each utterance has its route."""
    if len(routes) != utterances:
        raise RouteError(
            f"{len(routes)} routes for {utterances} utterances; give each its own, None = the base"
        )


def load(
    base: str | Path,
    adapters: Iterable[str | Path] = (),
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> SpeechModel[Any]:
    """Load a frozen base and adapters.

    Args:
        base: Hub id (``openai/whisper-base``, ``facebook/wav2vec2-base-960h``,
            ``MIT/ast-finetuned-audioset-10-10-0.4593``, …), transformers folder, or CTranslate2
            folder of a Whisper.
        adapters: Folders, or names on the hub (``owner/name``, ``owner/name@revision``).
        device: Where to run.
        dtype: Data type of the weights.
        offline: Ask neither the hub nor a package registry.

    Raises:
        CheckpointError: The base cannot be had or is damaged.
        AdapterError: An adapter is damaged or belongs to another base.
        FetchError: An adapter cannot be had from the hub.
    """
    backbone = load_backbone(str(base), dtype=dtype, offline=offline)
    backbone.to(torch.device(device))
    model = SpeechModel(backbone)
    for name in adapters:
        model.load_adapter(find_adapter(name, offline=offline))
    return model
