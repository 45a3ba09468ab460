"""A LoRA from a base that was fine-tuned whole, post hoc, as PHLoRA does: no data is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.lora import LoraConfig, principal
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.base import Backbone
from speechadapt.errors import ConfigError


@dataclass(frozen=True)
class Extraction:
    """What was kept of a fine-tuning.

    Attributes:
        adapter: A LoRA whose scale is 1.
        energy: Share of the squared change of each site's weight that it holds, 0 … 1.
        left_out: Parameters that changed and that no LoRA of these sites can hold, such as biases.
    """

    adapter: Adapter
    energy: dict[str, float]
    left_out: list[str]


def extract_lora(
    name: str, base: Backbone, tuned: Backbone, config: LoraConfig, info: AdapterInfo
) -> Extraction:
    """The best approximation of a fine-tuning as a LoRA of the given rank, by singular values.

    Args:
        name: How routes call the adapter.
        base: The base before.
        tuned: The same model after fine-tuning.
        config: Rank and sites; its alpha is set so that the scale is 1.
        info: What else is known of the adapter.

    Raises:
        ConfigError: The two are not the same architecture.
    """
    if set(base.sites) != set(tuned.sites):
        raise ConfigError(
            f"{tuned.name} and {base.name} are different models; give the base it was tuned from"
        )
    config = LoraConfig(
        points=config.points,
        stacks=config.stacks,
        top_layers=config.top_layers,
        rank=config.rank,
        alpha=float(config.rank),
    )
    adapter = Adapter.fresh(name, config, family_of(config), base.sites.values(), info)
    energy, held = {}, set()
    paths = {id(module): path for path, module in base.model.named_modules()}
    for site_name, tensors in adapter.tensors.items():
        before, after = (backbone.sites[site_name].leaf for backbone in (base, tuned))
        assert isinstance(before, nn.Linear) and isinstance(after, nn.Linear)
        if before.weight.shape != after.weight.shape:
            raise ConfigError(
                f"{site_name} is {list(after.weight.shape)} in {tuned.name}, "
                f"{list(before.weight.shape)} in {base.name}; give the base it was tuned from"
            )
        change = after.weight.detach().double() - before.weight.detach().double()
        rank = min(config.rank, *change.shape)
        down, up = principal(change, rank)
        with torch.no_grad():
            tensors["down.weight"].zero_()[:rank].copy_(down)
            tensors["up.weight"].zero_()[:, :rank].copy_(up)
        whole = change.square().sum()
        lost = (change - up.double() @ down.double()).square().sum()
        energy[site_name] = float(1 - lost / whole) if whole > 0 else 1.0
        held.add(f"{paths[id(before)]}.weight")
    return Extraction(adapter, energy, sorted(_changed(base, tuned) - held))


def _changed(base: Backbone, tuned: Backbone) -> set[str]:
    after: dict[str, Tensor] = dict(tuned.model.named_parameters())
    return {
        name
        for name, tensor in base.model.named_parameters()
        if name not in after or not torch.equal(tensor, after[name])
    }
