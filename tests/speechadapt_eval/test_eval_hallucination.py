"""Signs of hallucination, counted by hand and against a plain definition of a loop."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.transcripts.hallucination import hallucination, has_loop


def test_by_hand():
    refs = {
        "beep": "...", "hum": "", "hiss": "",
        "run": "a b", "two": "a b c d", "loop": "x y", "said": "no no no no", "long": "a",
        "gone": "a b c", "good": "yes",
    }  # fmt: skip
    hyps = {
        "beep": "thank you", "hum": "", "hiss": "you",
        "run": "a p q r b s t u", "two": "a p q b c d", "loop": "x y x y x y",
        "said": "no no no no", "long": "a a", "gone": "", "good": "yes",
    }  # fmt: skip
    rate = score(refs, hyps)
    found = hallucination(rate, {"beep": 10, "hum": 20.0, "hiss": 30, "run": 1})
    assert (found.nonspeech, found.nonspeech_with_output, found.nonspeech_tokens) == (3, 2, 3)
    assert found.output_share == 2 / 3 and found.tokens_per_minute == 3.0
    assert (found.speech, found.n_ref) == (7, 17)
    assert found.insertion_runs == 3  # two in "run", one in "loop"
    assert found.runs_per_100 == pytest.approx(300 / 17)
    assert found.loops == 1 and found.loop_share == 1 / 7
    assert found.long_outputs == 2  # "run" and "loop"; twice as long is not more than twice
    assert found.empty_outputs == 1 and found.empty_share == 1 / 7


def test_what_is_not_known_is_nan():
    speech = hallucination(score({"u": "a"}, {"u": "a"}))
    assert math.isnan(speech.output_share) and math.isnan(speech.tokens_per_minute)
    silence = hallucination(score({"u": "", "v": ""}, {"u": "a", "v": ""}), {"u": 2.0})
    assert math.isnan(silence.tokens_per_minute) and silence.output_share == 0.5
    assert math.isnan(silence.loop_share) and math.isnan(silence.runs_per_100)


@pytest.mark.parametrize("seconds", [0, -1.0, math.inf])
def test_durations_are_positive(seconds):
    with pytest.raises(EvalError, match="durations must be seconds above 0: see 'u'"):
        hallucination(score({"u": ""}, {"u": "a"}), {"u": seconds})


@pytest.mark.parametrize(
    ("text", "loop"),
    [("a a a", True), ("a a", False), ("a a b a a", False), ("a b a b a b", True),
     ("a b a b a", False), ("x a b c a b c a b c y", True), ("a b c a b c a b", False),
     ("a a b b a a b b a a b b", True), ("", False)],
)  # fmt: skip
def test_loops(text, loop):
    assert has_loop(text.split()) is loop


def plainly(tokens):
    return any(
        tokens[start : start + n] * 3 == tokens[start : start + 3 * n]
        for n in range(1, len(tokens) // 3 + 1)
        for start in range(len(tokens) - 3 * n + 1)
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from("ab"), max_size=14) | st.lists(st.sampled_from("abc"), max_size=20))
def test_loops_as_defined(tokens):
    assert has_loop(tokens) is plainly(tokens)


def test_loops_of_long_sentences_in_a_long_text():
    words = [f"w{n}" for n in range(100_000)]
    assert not has_loop(words)
    assert has_loop(words[:50_000] + words[-64:] * 3 + words[50_000:-64])
    assert not has_loop(words[:64] * 2 + words[64:])
