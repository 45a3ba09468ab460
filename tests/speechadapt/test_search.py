"""Greedy, beam and sampling: equal to transformers, and the same in any batch."""

import math

import pytest
import torch
from adapting import add
from tiny_decoding import (
    END,
    LANGUAGES,
    NO_TIMESTAMPS,
    START,
    TASKS,
    add_adapter,
    tiny_model,
    waves,
)
from transformers import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput

from speechadapt.adapters.registry import PRESETS
from speechadapt.call import running
from speechadapt.decoding.search import DecodeOptions, decode, detect_languages, token_budget
from speechadapt.errors import ConfigError

LENGTHS = (0.4, 1.3, 0.7, 1.0)
PLAIN = {"temperatures": (0.0,), "no_speech_threshold": None, "max_tokens": 40}


def run(model, options, routes=None, languages=None, lengths=LENGTHS, trailing=0.5):
    routes = routes or [None] * len(lengths)
    encoded = model.encode(waves(*lengths), routes, trailing)
    return decode(model, encoded, routes, languages or ["be"] * len(lengths), options, lengths)


def reference(model, wave, beams, suppress=True):
    """What transformers' own generate finds, and whether it ended by itself."""
    states = model.encode([wave], [None], 0.5).states
    generation = model.backbone.generation
    config = GenerationConfig(
        eos_token_id=END,
        bos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=generation.suppress_tokens,
        begin_suppress_tokens=generation.begin_suppress_tokens,
        num_beams=beams,
        early_stopping=beams > 1,
        renormalize_logits=True,
        max_new_tokens=40,
    )
    prompt = torch.tensor([[START, LANGUAGES["<|be|>"], TASKS["transcribe"], NO_TIMESTAMPS]])
    output = GenerationMixin.generate(
        model.backbone.model,
        encoder_outputs=BaseModelOutput(states),
        decoder_input_ids=prompt,
        generation_config=config,
    )
    ids = output[0, prompt.shape[1] :].tolist()
    return (tuple(ids[: ids.index(END)]), True) if END in ids else (tuple(ids), False)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_a_mixed_length_batch_finds_what_transformers_finds_alone(beams):
    ended = different = 0
    for seed in (0, 1, 2):
        model = tiny_model(seed)
        found = run(model, DecodeOptions(beam_size=beams, **PLAIN))
        for hypothesis, wave in zip(found, waves(*LENGTHS), strict=True):
            tokens, by_itself = reference(model, wave, beams)
            ended += by_itself
            different += len(tokens) > 1
            # A hypothesis cut by the limit competes with ended ones in transformers, not here.
            if by_itself or beams == 1:
                assert hypothesis.tokens == tokens
    assert ended >= 4 and different >= 4


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(**PLAIN),
        DecodeOptions(**PLAIN, beam_size=3),
        DecodeOptions(**PLAIN, timestamps=True),
        DecodeOptions(**PLAIN, timestamps=True, beam_size=3),
        DecodeOptions(**{**PLAIN, "temperatures": (0.7,)}),
        DecodeOptions(**{**PLAIN, "temperatures": (0.0, 0.6, 1.0)}, logprob_threshold=-0.8),
    ],
    ids=["greedy", "beam", "timestamps", "beam timestamps", "sampling", "fallback"],
)
def test_an_utterance_gets_in_a_mixed_batch_what_it_gets_alone(options):
    model = tiny_model(0)
    add_adapter(model, "be", 1)
    add_adapter(model, "ro", 2)
    routes = ["be", None, "ro", "be"]
    languages = ["be", None, "en", None]
    together = run(model, options, routes, languages)
    for i, length in enumerate(LENGTHS):
        wave = [waves(*LENGTHS)[i]]
        encoded = model.encode(wave, [routes[i]], 0.5)
        (alone,) = decode(model, encoded, [routes[i]], [languages[i]], options, [length])
        assert alone.tokens == together[i].tokens
        assert alone.text == together[i].text
        assert alone.language == together[i].language
        assert alone.temperature == together[i].temperature
        assert math.isclose(alone.avg_logprob, together[i].avg_logprob, rel_tol=1e-9)
        assert math.isclose(alone.no_speech_prob, together[i].no_speech_prob, rel_tol=1e-9)
    assert len({h.tokens for h in together}) > 1


@pytest.mark.parametrize("route", [None, "ia3", "prefix"])
def test_log_probability_is_that_of_a_teacher_forced_pass(route):
    """Also with adapters of cross-attention, whose keys and values a cache keeps."""
    model = tiny_model(0)
    if route is not None:
        add(model, route, PRESETS[route], 1)
    options = DecodeOptions(**PLAIN)
    encoded = model.encode(waves(1.3), [route], 0.5)
    (found,) = decode(model, encoded, [route], ["be"], options, [1.3])
    prompt = [START, LANGUAGES["<|be|>"], TASKS["transcribe"], NO_TIMESTAMPS]
    ids = [*prompt, *found.tokens, END]
    with torch.no_grad(), running(model.call([route], encoded)):
        states = model.backbone.decoder_states(torch.tensor([ids]), encoded)
        logits = model.backbone.logits(states)[0]
    logits[:, model.backbone.generation.suppress_tokens] = -torch.inf
    logits[3, model.backbone.generation.begin_suppress_tokens] = -torch.inf
    logprobs = logits.log_softmax(-1)
    total = sum(float(logprobs[i - 1, ids[i]]) for i in range(4, len(ids)))
    assert math.isclose(found.avg_logprob, total / (len(found.tokens) + 1), rel_tol=1e-9)


def test_suppressed_tokens_never_come():
    for seed in (0, 1):
        model = tiny_model(seed)
        generation = model.backbone.generation
        for options in (
            DecodeOptions(**PLAIN),
            DecodeOptions(**PLAIN, beam_size=4),
            DecodeOptions(**{**PLAIN, "temperatures": (3.0,)}),
        ):
            for found in run(model, options):
                assert not set(found.tokens) & set(generation.suppress_tokens)
                assert found.tokens[0] not in generation.begin_suppress_tokens


def test_timestamps_come_in_pairs_and_never_go_back():
    for seed in (0, 1):
        for found in run(tiny_model(seed), DecodeOptions(**PLAIN, timestamps=True)):
            first = NO_TIMESTAMPS + 1
            assert first <= found.tokens[0] <= first + 50
            times = [token for token in found.tokens if token >= first]
            assert times == sorted(times)


def test_sampling_depends_on_the_seed_only():
    model = tiny_model(0)
    options = DecodeOptions(**{**PLAIN, "temperatures": (1.0,)})
    first, again = run(model, options), run(model, options)
    assert [h.tokens for h in first] == [h.tokens for h in again]
    other = run(model, DecodeOptions(**{**PLAIN, "temperatures": (1.0,)}, seed=1))
    assert [h.tokens for h in first] != [h.tokens for h in other]


def test_detected_language_is_used_and_reported():
    model = tiny_model(0)
    encoded = model.encode(waves(*LENGTHS), [None] * 4, 0.5)
    detected = detect_languages(model, encoded, [None] * 4)
    found = run(model, DecodeOptions(**PLAIN), languages=[None, "en", None, "be"])
    assert [h.language for h in found] == [detected[0][0], "en", detected[2][0], "be"]
    assert found[0].language_probability == pytest.approx(detected[0][1])
    assert found[1].language_probability is None
    given = run(model, DecodeOptions(**PLAIN), languages=[h.language for h in found])
    assert [h.tokens for h in given] == [h.tokens for h in found]


def test_language_names_and_unknown_languages():
    assert DecodeOptions(language="Belarusian").language == "be"
    with pytest.raises(ConfigError, match="'xx' is unknown to this model"):
        run(tiny_model(0), DecodeOptions(**PLAIN), languages=["be", "xx", "be", "be"])


def test_english_only_models():
    model = tiny_model(0, english=True)
    found = run(model, DecodeOptions(**PLAIN), languages=[None, "en", None, "english"])
    assert len(found) == 4 and found[0].language is None
    with pytest.raises(ConfigError, match="only transcribes English"):
        run(model, DecodeOptions(**PLAIN), languages=["be"] * 4)
    with pytest.raises(ConfigError, match="only transcribes English"):
        run(model, DecodeOptions(**PLAIN, task="translate"), languages=[None] * 4)
    with pytest.raises(ConfigError, match="only transcribes English"):
        detect_languages(model, model.encode(waves(0.5), [None], 0.5), [None])


def test_token_budget():
    options = DecodeOptions()
    assert token_budget(2.0, 448, options) == 76
    assert token_budget(30.0, 448, options) == 224
    assert token_budget(2.0, 448, DecodeOptions(max_tokens=10)) == 10
    assert token_budget(2.0, 448, DecodeOptions(max_tokens=1000)) == 224
    model = tiny_model(3)
    model.backbone.generation.suppress_tokens.append(END)
    found = run(model, DecodeOptions(**{**PLAIN, "max_tokens": None}), lengths=(0.1, 0.2))
    assert [len(h.tokens) for h in found] == [19, 22]


def test_beam_prefers_an_ended_hypothesis_over_one_cut_by_its_budget():
    model = tiny_model(0)
    for found in run(model, DecodeOptions(**{**PLAIN, "max_tokens": 30}, beam_size=5)):
        assert len(found.tokens) < 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "beam size 0"),
        ({"temperatures": ()}, "temperatures"),
        ({"temperatures": (-1.0,)}, "temperatures"),
        ({"temperatures": (math.nan,)}, "temperatures"),
        ({"task": "sing"}, "'sing' is unknown"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"no_speech_threshold": 2.0}, "no probability"),
    ],
)
def test_options_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        DecodeOptions(**settings)


def test_half_precision_decodes():
    model = tiny_model(0)
    model.backbone.model.to(torch.bfloat16)
    assert len(run(model, DecodeOptions(**PLAIN, beam_size=2))) == 4
