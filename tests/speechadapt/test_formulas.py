"""Families against their formulas, written out once more: the frozen layer, and what is added to it
once."""

from dataclasses import replace

import pytest
import torch
from adapting import add
from torch import nn

from speechadapt.adapters.registry import PRESETS
from speechadapt.call import running

SITE = "encoder.1.ffn.out"
PLACE = {"points": ("ffn.out",), "stacks": ("encoder",), "top_layers": 1}


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def normed(x, w):
    """LayerNorm."""
    centred = x - x.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True)
    return centred / (spread + 1e-5).sqrt() * w["norm.weight"] + w["norm.bias"]


def convolved(h, kernel, bias, first):
    """``out[t] = bias + Σ_k kernel[..., k] h[t + first + k]``, zero outside the utterance."""
    out = torch.empty(*h.shape[:2], len(kernel), dtype=h.dtype)
    for t in range(h.shape[1]):
        out[:, t] = bias
        for tap in range(kernel.shape[2]):
            at = t + first + tap
            if 0 <= at < h.shape[1]:
                out[:, t] += h[:, at] @ kernel[:, :, tap].T
    return out


def convpass(w, x, _y, first=-1):
    h = gelu(x @ w["down.weight"].T + w["down.bias"])
    h = gelu(convolved(h, w["conv.weight"], w["conv.bias"], first))
    return h @ w["up.weight"].T + w["up.bias"]


def conformer(w, x, _y, train=False):
    value, gate = (normed(x, w) @ w["down.weight"].T + w["down.bias"]).chunk(2, -1)
    depthwise = torch.diag_embed(w["conv.weight"][:, 0].T).permute(1, 2, 0)  # one for each channel
    h = convolved(value * torch.sigmoid(gate), depthwise, w["conv.bias"], -3)
    batch_norm = nn.BatchNorm1d(h.shape[-1]).double().train(train)
    batch_norm.load_state_dict(
        {
            "weight": w["inner_norm.weight"],
            "bias": w["inner_norm.bias"],
            "running_mean": w["inner_norm.mean"],
            "running_var": w["inner_norm.var"],
            "num_batches_tracked": torch.tensor(0),
        }
    )
    h = batch_norm(h.mT).mT
    return (h * torch.sigmoid(h)) @ w["up.weight"].T + w["up.bias"]


def experts(w, read, count):
    """What each expert makes of ``read[e]``."""
    downs, biases = w["down.weight"].chunk(count), w["down.bias"].chunk(count)
    return [
        gelu(read[e] @ downs[e].T + biases[e]) @ w["up.weight"][e].T + w["up.bias"][e]
        for e in range(count)
    ]


def dense(w, x, _y):
    scores = (x @ w["router.weight"].T).exp()
    shares = scores / scores.sum(-1, keepdim=True)
    return sum(shares[..., e, None] * made for e, made in enumerate(experts(w, [x] * 3, 3)))


def soft(w, x, _y):
    """Puigcerver et al.: slot s reads Σ_t D[t, s] x[t], frame t gets Σ_s C[t, s] out[s]."""
    rows = []
    for frames in x:
        scores = (frames @ w["router.weight"].T).exp()  # [frames, 3 experts of 2 slots]
        slots = (scores / scores.sum(0)).T @ frames
        made = torch.cat(experts(w, slots.view(3, 2, -1), 3))
        rows.append(scores / scores.sum(1, keepdim=True) @ made)
    return torch.stack(rows)


def shift(w, _x, y):
    return w["shift"] * (y @ w["size.weight"].T + w["size.bias"])


def times_four(w, x, _y):
    return 4 * (
        (x @ w["down.weight"].T + w["down.bias"]).clamp(min=0) @ w["up.weight"].T + w["up.bias"]
    )


def gated(w, x, _y, hard=False):
    logit = (x @ w["gate.down.weight"].T + w["gate.down.bias"]).clamp(min=0) @ w["gate.up.weight"].T
    h = gelu(normed(x, w) @ w["down.weight"].T + w["down.bias"])
    gate = logit >= 0 if hard else 1 / (1 + torch.exp(-logit))
    return gate * (h @ w["up.weight"].T + w["up.bias"])


def preset(name, **changes):
    return replace(PRESETS[name], **PLACE, **changes)


FORMULAS = {
    "convpass": (preset("convpass", bottleneck=5), convpass),
    "convpass_causal": (
        preset("convpass", bottleneck=5, causal=True),
        lambda w, x, y: convpass(w, x, y, first=-2),
    ),
    "conformer": (preset("conformer", bottleneck=5, kernel=7), conformer),
    "dense_moa": (preset("dense_moa", experts=3, bottleneck=4), dense),
    "soft_moa": (preset("soft_moa", experts=3, bottleneck=4, slots=2), soft),
    "adapter_bias": (preset("adapter_bias"), shift),
    "scaled_parallel": (preset("scaled_parallel", bottleneck=5), times_four),
    "gated": (preset("gated", bottleneck=5), gated),
    "gated_hard": (
        preset("gated", bottleneck=5, hard=True),
        lambda w, x, y: gated(w, x, y, hard=True),
    ),
}


def layer(model, mel):
    """What the frozen feed-forward of the last layer reads and gives, and the residual."""
    site, seen = model.backbone.sites[SITE], {}
    hooks = (
        site.entry.register_forward_hook(
            lambda _m, inputs, output: seen.update(residual=inputs[0], x=output)
        ),
        site.leaf.register_forward_hook(lambda _m, _i, output: seen.update(y=output)),
    )
    states(model, mel, [None, None])
    for hook in hooks:
        hook.remove()
    return seen["x"], seen["y"], seen["residual"]


def states(model, mel, routes):
    with torch.no_grad(), running(model.bank.call(routes, None)):
        return model.backbone.encode(mel).states


@pytest.mark.parametrize("name", FORMULAS)
def test_a_family_is_its_formula(model, waves, name):
    config, formula = FORMULAS[name]
    mel = model.backbone.features([waves[0], waves[0][::-1].copy()], 0.3)
    x, y, residual = layer(model, mel)
    weights = {
        key: t.detach().clone() for key, t in add(model, "a", config, 1).tensors[SITE].items()
    }
    final = model.backbone.model.model.encoder.layer_norm
    expected = final(residual + y + formula(weights, x, y)).detach()
    torch.testing.assert_close(states(model, mel, ["a", "a"]), expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(final(residual + y), expected, atol=1e-3)


def test_a_conformer_in_training_normalises_by_its_batch(model, waves):
    config, _ = FORMULAS["conformer"]
    mel = model.backbone.features([waves[0], waves[0][::-1].copy()], 0.3)
    x, y, residual = layer(model, mel)
    adapter = add(model, "a", config, 1)
    weights = {key: t.detach().clone() for key, t in adapter.tensors[SITE].items()}
    adapter.train()
    final = model.backbone.model.model.encoder.layer_norm
    expected = final(residual + y + conformer(weights, x, y, train=True)).detach()
    torch.testing.assert_close(states(model, mel, ["a", "a"]), expected, rtol=1e-9, atol=1e-9)
