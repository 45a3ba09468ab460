"""Keys and values of an adapter's own, against attention written out."""

import pytest
import torch
from adapting import add
from tiny_backbones import tiny_backbone
from transformers import DynamicCache, EncoderDecoderCache

from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.prefix import PrefixConfig
from speechadapt.call import running
from speechadapt.errors import ConfigError, SpeechAdaptError
from speechadapt.model import SpeechModel
from speechadapt.route import Stack

TOKENS = torch.tensor([[41, 42, 44, 46, 5, 6, 9]])
BOTH = ("attn.kv", "cross.kv")
CONFIGS = {
    "gated": PrefixConfig(length=3, points=BOTH),
    "ungated": PrefixConfig(length=3, points=BOTH, gate=False),
    "gated states": PrefixConfig(length=3, points=BOTH, learns="states"),
    "ungated states": PrefixConfig(length=3, points=BOTH, learns="states", gate=False),
}


def attend(attention, hidden, states, mask, keys, values, gate):
    """Multi-head attention with further keys and values ``[length, dim]``, head by head."""
    query = attention.q_proj(hidden) * attention.scaling
    key, value = attention.k_proj(states), attention.v_proj(states)
    size = query.shape[-1] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        own = query[..., part] @ keys[:, part].T
        scores = (query[..., part] @ key[..., part].mT).masked_fill(~mask, -torch.inf)
        if gate is None:
            weights = torch.cat([scores, own], -1).softmax(-1)
            both = torch.cat([value[..., part], values[:, part].expand(len(value), -1, -1)], 1)
            heads.append(weights @ both)
        else:
            read = scores.softmax(-1) @ value[..., part]
            heads.append(read + gate[head].tanh() * (own.softmax(-1) @ values[:, part]))
    return attention.out_proj(torch.cat(heads, -1))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_it_is_attention_over_further_keys_and_values(model, waves, name, stack):
    """A layer of each stack by hand: its norms, masks and residuals, with the adapter's tensors."""
    adapter = add(model, "a", CONFIGS[name], 1)
    layer = getattr(model.backbone.model.model, stack).layers[0]
    seen = {}
    handles = [
        layer.register_forward_pre_hook(lambda _m, inputs: seen.update(x=inputs[0])),
        layer.register_forward_hook(lambda _m, _i, y: seen.update(y=y)),
    ]
    encoded = model.encode(waves[:2], ["a", "a"], 0.3)
    if stack == "decoder":
        with torch.inference_mode(), running(model.call(["a", "a"], encoded)):
            model.backbone.decoder_states(TOKENS.repeat(2, 1), encoded)
    for handle in handles:
        handle.remove()
    # Some releases of transformers give a tuple.
    got = seen["y"][0] if isinstance(seen["y"], tuple) else seen["y"]
    hidden = seen["x"]
    valid = (torch.arange(encoded.states.shape[1]) < encoded.lengths[:, None])[:, None]
    causal = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool).tril()
    parts = [("attn", "self_attn", causal if stack == "decoder" else valid)]
    if stack == "decoder":
        parts.append(("cross", "encoder_attn", valid))
    with torch.inference_mode():
        for sublayer, path, mask in parts:
            attention, norm = getattr(layer, path), getattr(layer, f"{path}_layer_norm")
            tensors = adapter.tensors[f"{stack}.0.{sublayer}.kv"]
            keys, values = tensors.get("key"), tensors.get("value")
            if "state" in tensors:
                made = norm(tensors["state"]) if sublayer == "attn" else tensors["state"]
                keys, values = attention.k_proj(made), attention.v_proj(made)
            x = norm(hidden)
            states = x if sublayer == "attn" else encoded.states
            change = attend(attention, x, states, mask, keys, values, tensors.get("gate"))
            hidden = hidden + change
        inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
        expected = hidden + layer.fc2(inner)
    for row, length in enumerate(encoded.lengths if stack == "encoder" else [TOKENS.shape[1]] * 2):
        torch.testing.assert_close(got[row, :length], expected[row, :length])


@pytest.mark.parametrize("name", CONFIGS)
def test_token_by_token_is_all_at_once(model, waves, name):
    """Cached decoding, two rows an utterance as beams have them, next to other routes."""
    add(model, "a", CONFIGS[name], 1)
    add(model, "b", CONFIGS[name], 2)
    routes = ["a", None, "b"]
    encoded = model.encode(waves, routes, 0.3)
    call = model.call(routes, encoded)
    tokens = TOKENS.repeat(6, 1)
    tokens[1::2, -3:] = 7
    twice = torch.arange(3).repeat_interleave(2)
    with torch.inference_mode(), running(call):
        expected = model.backbone.decoder_states(tokens, encoded.rows(twice))
        decoder = model.backbone.model.model.decoder
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        steps = [
            decoder(
                input_ids=tokens[:, start:end],
                encoder_hidden_states=encoded.rows(twice).states,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            for start, end in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 7))
        ]
    torch.testing.assert_close(torch.cat(steps, 1), expected)


def test_ungated_prefixes_in_a_stack_share_one_softmax(model, waves):
    """One after another is both side by side, in any order."""
    config = PrefixConfig(length=2, gate=False)
    first, second = add(model, "a", config, 1), add(model, "b", config, 2)
    both = add(model, "both", PrefixConfig(length=4, gate=False), 3)
    for site, tensors in both.tensors.items():
        for key, tensor in tensors.items():
            tensor.data = torch.cat([first.tensors[site][key], second.tensors[site][key]])
    expected = model.encode(waves, ["both"] * 3, 0.3).states
    for route in (Stack("a", "b"), Stack("b", "a")):
        torch.testing.assert_close(model.encode(waves, [route] * 3, 0.3).states, expected)


def test_without_a_gate_a_fresh_prefix_takes_little_attention(model, waves):
    """No identity: its values are zero, so what others gave shrinks by what its keys are given."""
    config = PrefixConfig(length=2, gate=False, top_layers=1, stacks=("encoder",))
    adapter = add(model, "a", config, effect=False)
    attention = model.backbone.model.model.encoder.layers[1].self_attn
    seen = {part: [] for part in ("q", "k", "out")}
    handles = [
        attention.q_proj.register_forward_hook(lambda _m, _i, y: seen["q"].append(y)),
        attention.k_proj.register_forward_hook(lambda _m, _i, y: seen["k"].append(y)),
        attention.out_proj.register_forward_pre_hook(lambda _m, i: seen["out"].append(i[0])),
    ]
    for route in (None, "a"):
        model.encode(waves[:1], [route], 0.3)
    for handle in handles:
        handle.remove()
    own = adapter.tensors["encoder.1.attn.kv"]["key"]
    query, key, own = (
        x.unflatten(-1, (attention.num_heads, -1)).transpose(-3, -2)
        for x in (seen["q"][0] * attention.scaling, seen["k"][0], own)
    )
    others, mine = ((query @ keys.mT).exp().sum(-1) for keys in (key, own))
    left = (others / (others + mine)).mT.repeat_interleave(query.shape[-1], -1)
    assert float(left.min()) > 0.9 and float(left.max()) < 1
    torch.testing.assert_close(seen["out"][1], left * seen["out"][0])


def test_no_other_family_attaches_to_an_attention_nor_a_prefix_elsewhere(model):
    with pytest.raises(ConfigError, match="only prefixes attach"):
        add(model, "a", BottleneckConfig(points=("attn.kv",)))
    with pytest.raises(ConfigError, match=r"at attn\.kv or cross\.kv"):
        add(model, "a", PrefixConfig(points=("ffn.out",)))
    with pytest.raises(ConfigError, match="learns is 'both'"):
        PrefixConfig(learns="both")


def test_where_no_attention_function_reaches_it_is_refused():
    with pytest.raises(ConfigError, match=r"points has \*\.kv"):
        add(SpeechModel(tiny_backbone("wavlm")), "a", PrefixConfig())


def test_a_changed_attention_function_is_told(model, waves):
    """Eager attention never asks the adapters: their silence would be an answer without them."""
    add(model, "a", PrefixConfig())
    model.backbone.model.set_attn_implementation("eager")
    with pytest.raises(SpeechAdaptError, match="do not change its attention"):
        model.encode(waves, ["a"] * 3, 0.3)
    model.encode(waves, [None] * 3, 0.3)
    model.backbone.model.set_attn_implementation("speechadapt")
    model.encode(waves, ["a"] * 3, 0.3)
