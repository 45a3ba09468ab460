"""SNIP on a run's own data: what matters is kept, nothing is left behind."""

import dataclasses

import pytest
import torch
from adapting import add

from speechadapt.adapters.sparse import SparseConfig, unpack_mask
from speechadapt.call import Call, running
from speechadapt.training.pruning import awaits_scores, prune

SITE = "encoder.1.ffn.out"
CONFIG = SparseConfig(bottleneck=6, density=0.1, points=("ffn.out",), layer_norm=False)


def masks(adapter, site=SITE):
    tensors = adapter.tensors[site]
    return {
        part: unpack_mask(tensors[f"{part}.mask"], 6 * 64).view(shape).clone()
        for part, shape in (("down", (6, 64)), ("up", (64, 6)))
    }


def losses_of(model, waves, loss):
    """The losses of two batches as a trainer hands them to :func:`prune`."""

    def losses(adapter):
        for batch in (waves[:2], waves[2:]):
            mel = model.backbone.features(batch, 0.3)
            lengths = model.backbone.key_lengths(mel)
            with running(Call((adapter,), ((0,),) * len(batch), lengths)):
                made = loss(mel)
            yield made

    return losses


def encoder_loss(model):
    return lambda mel: model.backbone.encode(mel).states.square().sum()


def test_what_the_loss_does_not_see_is_pruned_first(model, waves):
    """The site reads only 8 of its 64 channels, and only 8 of what it gives are asked for."""
    leaf = model.backbone.sites[SITE].leaf
    leaf.weight.data[8:], leaf.bias.data[8:] = 0.0, 0.0
    adapter = add(model, "a", CONFIG, effect=False)
    seen = []
    handle = leaf.register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    def loss(mel):
        model.backbone.encode(mel)
        return seen.pop()[..., -8:].square().sum()

    prune(adapter, model, losses_of(model, waves, loss), seed=0)
    handle.remove()
    kept = masks(adapter)
    assert kept["down"][:, 8:].sum() == 0 and kept["down"].sum() == 38
    assert kept["up"][:-8].sum() == 0 and kept["up"].sum() == 38


def test_scores_follow_the_definition(model, waves):
    """|gradient x weight| of a dense bottleneck written out by hand, summed over the batches."""
    adapter = add(model, "a", CONFIG, effect=False)
    found = {}

    def spying(dense):
        for loss in losses_of(model, waves, encoder_loss(model))(dense):
            for part in ("down", "up"):
                weight = dense.tensors[SITE][f"{part}.weight"]
                (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
                found[part] = found.get(part, 0) + (gradient * weight).abs()
            yield loss

    prune(adapter, model, spying, seed=3)
    for part, kept in masks(adapter).items():
        score = found[part]
        assert (score > 0).all()
        assert score[kept].min() > score[~kept].max()


def test_it_stays_the_identity_and_leaves_nothing_behind(model, waves):
    before = model.encode(waves, [None] * 3, 0.3).states
    adapter = add(model, "a", CONFIG, effect=False)
    fresh, hooks = masks(adapter), len(model.bank._hooks._handles)
    prune(adapter, model, losses_of(model, waves, encoder_loss(model)), seed=0)
    assert torch.equal(model.encode(waves, ["a"] * 3, 0.3).states, before)
    assert any(not torch.equal(fresh[part], mask) for part, mask in masks(adapter).items())
    assert [each.name for each in model.bank] == ["a"]
    assert len(model.bank._hooks._handles) == hooks
    assert all(t.grad is None and not t.requires_grad for _, t in adapter.named_tensors())
    assert all(p.grad is None for p in model.backbone.model.parameters())
    assert adapter.tensors[SITE]["down.values"].all()


def test_the_same_data_choose_the_same_weights(model, waves):
    chosen = []
    for name in ("a", "b"):
        adapter = add(model, name, CONFIG, seed=len(name), effect=False)
        prune(adapter, model, losses_of(model, waves, encoder_loss(model)), seed=7)
        chosen.append(dict(adapter.named_tensors()))
    assert all(torch.equal(tensor, chosen[1][key]) for key, tensor in chosen[0].items())


def test_where_no_gradient_comes_the_lot_decides(model, waves):
    """An encoder's loss says nothing about the decoder, a constant nothing about anything."""
    adapter = add(model, "a", CONFIG, effect=False)
    fresh = {site: masks(adapter, site) for site in adapter.tensors}
    prune(adapter, model, losses_of(model, waves, lambda mel: mel.values.sum()), seed=0)
    for site, each in fresh.items():
        assert all(torch.equal(mask, each[part]) for part, mask in masks(adapter, site).items())
    prune(adapter, model, losses_of(model, waves, encoder_loss(model)), seed=0)
    for site, each in fresh.items():
        same = all(torch.equal(mask, each[part]) for part, mask in masks(adapter, site).items())
        assert same == site.startswith("decoder")


@pytest.mark.parametrize("score", ["snip", "magnitude", "random"])
def test_only_a_fresh_adapter_that_asks_for_it_awaits_scores(model, score):
    config = dataclasses.replace(CONFIG, score=score)
    assert awaits_scores(add(model, "fresh", config, effect=False)) == (score == "snip")
    assert not awaits_scores(add(model, "trained", config))
    assert not awaits_scores(add(model, "plain", config.dense, effect=False))
