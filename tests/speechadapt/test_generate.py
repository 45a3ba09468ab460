"""Generation with every adapter family: an utterance gets in a mixed batch what it gets alone."""

import math

import pytest
from adapting import add
from test_families import CHANGING, CONFIGS
from test_search import LENGTHS, PLAIN, waves
from tiny_decoding import tiny_model

from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.decoding.options import DecodeOptions
from speechadapt.decoding.search import decode
from speechadapt.route import Stack


@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beam"])
@pytest.mark.parametrize("name", CHANGING)
def test_mixed_is_single(name, beams):
    model = tiny_model(0)
    for seed, adapter in enumerate(("a", "b")):
        add(model, adapter, CONFIGS[name], seed)
    add(model, "other", BottleneckConfig(bottleneck=5), 4)
    routes = ["a", None, Stack("b", "other"), "b"]
    languages = ["be", "en", "ro", "be"]
    options = DecodeOptions(**PLAIN, beam_size=beams)

    def run(rows):
        chosen = [routes[row] for row in rows]
        encoded = model.encode([waves(*LENGTHS)[row] for row in rows], chosen, 0.5)
        seconds = [LENGTHS[row] for row in rows]
        return decode(model, encoded, chosen, [languages[row] for row in rows], options, seconds)

    together = run(range(4))
    for row, hypothesis in enumerate(together):
        (alone,) = run([row])
        assert alone.tokens == hypothesis.tokens
        assert math.isclose(alone.avg_logprob, hypothesis.avg_logprob, rel_tol=1e-9)
    model.bank.detach()
    routes = [None] * 4
    plain = run(range(4))
    same = [
        math.isclose(a.avg_logprob, b.avg_logprob, rel_tol=1e-9)
        for a, b in zip(together, plain, strict=True)
    ]
    assert same == [False, True, False, False]
