"""An adapter merged into its base: a plain checkpoint for tools that know no adapters."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.family import Layer
from speechadapt.backbones.base import Backbone
from speechadapt.errors import ConfigError
from speechadapt.interop.heads import with_head


def merge(backbone: Backbone, adapter: Adapter) -> PreTrainedModel:
    """A copy of the base that computes without hooks what the base computes with the adapter.

    Sums are made in float64 and rounded once. The base stays as it is. A head that the adapter
    brings along takes the place of the base's.

    Args:
        backbone: The frozen base.
        adapter: Of a family whose effect is linear in each layer: LoRA, Hydra, (IA)³, BitFit.

    Raises:
        ConfigError: The family is not linear, or no checkpoint can hold the head.
    """
    if adapter.tensors and not adapter.family.linear:
        raise ConfigError(
            f"a {adapter.config.method} adapter is not linear, so it cannot be merged"
        )
    paths = {id(module): path for path, module in backbone.model.named_modules()}
    merged = copy.deepcopy(backbone.model)
    for name, tensors in adapter.tensors.items():
        site = backbone.sites[name]
        if id(site.leaf) not in paths:
            raise ConfigError(f"{name}: no layer of the base is there to merge into")
        leaf = merged.get_submodule(paths[id(site.leaf)])
        weight, bias = leaf.weight, leaf.bias
        assert isinstance(weight, Tensor)
        layer = Layer(weight.detach().double(), None if bias is None else bias.detach().double())
        exact = {key: tensor.detach().double() for key, tensor in tensors.items()}
        layer = adapter.family.merge(adapter.config, site.point, exact, layer)
        with torch.no_grad():
            weight.copy_(layer.weight)
            if layer.bias is not None:
                bias.copy_(layer.bias)
    if adapter.head is None:
        return merged
    try:
        return with_head(backbone, merged, adapter.head)
    except ConfigError as error:
        raise ConfigError(f"adapter {adapter.name!r}: {error}") from None
