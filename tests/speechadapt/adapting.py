"""Adapters with an effect, for tests of any family."""

import torch

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import family_of


def add(model, name, config, seed=0, effect=True):
    """Put an adapter into the bank; ``effect`` moves every tensor away from its start."""
    family = family_of(config)
    adapter = Adapter.fresh(
        name, config, family, model.backbone.sites.values(), AdapterInfo(), seed
    )
    adapter.to(model.backbone.device, model.backbone.dtype)
    if effect:
        generator = torch.Generator().manual_seed(seed + 100)
        for key, tensor in adapter.named_tensors():
            # What a PiSSA adapter is measured from, and which weights a sparse one has.
            if "/start." in key or not tensor.is_floating_point():
                continue
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5
            tensor.data.add_((0.3 * noise).abs() if "var" in key else 0.3 * noise)
    # Last: other threads may use it from here on.
    return model.bank.add(adapter)
