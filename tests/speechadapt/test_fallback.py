"""When a hypothesis is tried again, and when it is silence."""

import dataclasses
import math

import pytest
from tiny_decoding import NO_SPEECH, tiny_model, waves

from speechadapt.decoding import search
from speechadapt.decoding.search import DecodeOptions, Hypothesis, compression_ratio, decode

OPTIONS = DecodeOptions()


def hypothesis(ratio=1.0, logprob=-0.5, no_speech=0.1):
    base = Hypothesis.silence("be")
    return dataclasses.replace(
        base, compression_ratio=ratio, avg_logprob=logprob, no_speech_prob=no_speech
    )


@pytest.mark.parametrize(
    ("values", "again", "silent"),
    [
        ({}, False, False),
        ({"ratio": 2.5}, True, False),
        ({"logprob": -1.1}, True, False),
        ({"no_speech": 0.9}, False, False),  # confident text wins over <|nospeech|>
        ({"no_speech": 0.9, "logprob": -1.1}, False, True),
        ({"no_speech": 0.9, "logprob": -1.1, "ratio": 3.0}, False, True),
        ({"no_speech": 0.6, "logprob": -1.1}, True, False),
    ],
)
def test_the_authors_rules(values, again, silent):
    assert search._needs_fallback(hypothesis(**values), OPTIONS) is again
    assert search._is_silence(hypothesis(**values), OPTIONS) is silent


def test_thresholds_can_be_switched_off():
    never = DecodeOptions(
        compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None
    )
    assert not search._needs_fallback(hypothesis(9.0, -9.0, 1.0), never)
    assert not search._is_silence(hypothesis(9.0, -9.0, 1.0), never)
    loud = DecodeOptions(logprob_threshold=None)
    assert search._is_silence(hypothesis(1.0, -0.1, 0.9), loud)


def test_compression_ratio():
    assert compression_ratio("una rana " * 20) > 2.4
    assert compression_ratio("una rana") < 1
    assert compression_ratio("") == 0


def test_only_failing_utterances_are_tried_again_and_the_last_try_is_kept():
    model = tiny_model(0)
    lengths = (0.4, 1.3, 0.7, 1.0)
    routes, languages = [None] * 4, ["be"] * 4
    encoded = model.encode(waves(*lengths), routes, 0.5)

    def run(**settings):
        options = DecodeOptions(
            no_speech_threshold=None, compression_ratio_threshold=None, **settings
        )
        return decode(model, encoded, routes, languages, options, lengths)

    greedy = run(temperatures=(0.0,), logprob_threshold=None)
    threshold = sorted(h.avg_logprob for h in greedy)[1] + 1e-6  # two of four fail
    found = run(temperatures=(0.0, 0.5), logprob_threshold=threshold)
    warm = run(temperatures=(0.5,), logprob_threshold=None)
    for before, after, sampled in zip(greedy, found, warm, strict=True):
        expected = sampled if before.avg_logprob < threshold else before
        assert after.tokens == expected.tokens
        assert after.temperature == expected.temperature
        assert math.isclose(after.avg_logprob, expected.avg_logprob, rel_tol=1e-9)
    assert sorted(h.temperature for h in found) == [0.0, 0.0, 0.5, 0.5]


def test_a_language_detected_first_stays_through_the_fallback():
    model = tiny_model(0)
    encoded = model.encode(waves(0.4, 1.3), [None] * 2, 0.5)
    options = DecodeOptions(
        no_speech_threshold=None, logprob_threshold=10.0, temperatures=(0.0, 0.5, 1.0)
    )
    found = decode(model, encoded, [None] * 2, [None] * 2, options)
    assert [h.temperature for h in found] == [1.0, 1.0]
    detected = search.detect_languages(model, encoded, [None] * 2)
    assert [h.language for h in found] == [code for code, _ in detected]
    assert all(h.language_probability is not None for h in found)


def test_silence_gives_empty_text():
    model = tiny_model(0)
    weight = model.backbone.model.proj_out.weight
    weight.data[NO_SPEECH] = 40 * weight[: NO_SPEECH - 10].mean(dim=0)
    encoded = model.encode(waves(0.4, 1.3, 0.6), [None] * 3, 0.5)
    options = DecodeOptions(logprob_threshold=10.0, no_speech_threshold=0.0, word_timestamps=True)
    for found in decode(model, encoded, [None] * 3, ["be"] * 3, options):
        assert (found.text, found.tokens, found.segments, found.words) == ("", (), (), ())
        assert found.no_speech_prob > 0
        assert found.temperature == 0
