"""Which weights a sparse adapter keeps, chosen on the run's own data before it learns (SNIP)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import family_of
from speechadapt.adapters.sparse import PARTS, SparseConfig, keep
from speechadapt.model import SpeechModel

BATCHES = 4
"""How many batches of the run decide."""
_SIZE = 1e-3  # of the temporary up projection: the states stay about what they are


def awaits_scores(adapter: Adapter) -> bool:
    """Whether its weights are still to be chosen: it asks for that and has not learnt anything."""
    config = adapter.config
    return (
        isinstance(config, SparseConfig)
        and config.score == "snip"
        and not any(bool(tensors["up.values"].any()) for tensors in adapter.tensors.values())
    )


def prune(
    adapter: Adapter,
    model: SpeechModel,
    losses: Callable[[Adapter], Iterable[Tensor]],
    seed: int,
) -> None:
    """Keep the weights whose removal would change the loss most; the adapter stays the identity.

    Connection sensitivity (Lee et al. 2019, *SNIP*, section 4): a weight's score is ``|g · w|``,
    summed over the batches, in the dense bottleneck that the adapter is a part of. Behind an up
    projection of zeros, with which adapters start, every score would be zero, so the dense one has
    an up projection of small random signs: numbers that do not stay should not decide by their
    size. It is used beside the bank and forgotten.

    Args:
        adapter: Its masks and values are set, in place. Where no gradient comes they stay.
        model: Whose bank holds the adapter.
        losses: Of the first batches of the run, with the adapter that it is given.
        seed: Of the dense bottleneck.
    """
    assert isinstance(adapter.config, SparseConfig)
    dense = _dense(adapter.config, model, seed)
    weights = {
        (site, part): tensors[f"{part}.weight"].requires_grad_()
        for site, tensors in dense.tensors.items()
        for part in PARTS
    }
    scores = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    for loss in losses(dense):
        if not loss.requires_grad:  # an objective that no site of the adapter reaches
            continue
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (key, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                scores[key] += (gradient * weight.detach()).abs()
    for (site, part), score in scores.items():
        if not score.any():
            continue
        kept = keep(part, weights[site, part].detach(), score, adapter.config.density)
        if part == "up":
            kept["up.values"].zero_()
        for name, tensor in kept.items():
            adapter.tensors[site][name].data.copy_(tensor)


def _dense(config: SparseConfig, model: SpeechModel, seed: int) -> Adapter:
    whole = config.dense
    sites = model.backbone.sites.values()
    dense = Adapter.fresh("dense", whole, family_of(whole), sites, AdapterInfo(), seed)
    generator = torch.Generator().manual_seed(seed)
    for tensors in dense.tensors.values():
        up = tensors["up.weight"]
        up.data = _SIZE * (2.0 * torch.randint(2, up.shape, generator=generator) - 1.0)
    return dense.to(model.backbone.device, model.backbone.dtype)
