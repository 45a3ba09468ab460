"""Slices: every utterance in one of them, in an order that people expect."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.transcripts.slices import DURATIONS, NONE, Slicing, parse, slices


def rate_of(names):
    return score(dict.fromkeys(names, "a b"), dict.fromkeys(names, "a c"))


def members(found):
    return {label: [u.id for u in rate.utterances] for label, rate in found.items()}


def test_parse():
    assert parse("noise") == Slicing("noise")
    assert parse("lang") == Slicing("language")
    assert parse("duration") == Slicing("duration", DURATIONS)
    assert parse("snr:-5,0,10.5") == Slicing("snr", (-5.0, 0.0, 10.5))


@pytest.mark.parametrize("text", ["", ":1", "snr:", "snr:a", "snr:5,1", "snr:1,1", "snr:0,inf"])
def test_parse_refuses(text):
    with pytest.raises(EvalError, match=r"write e\.g\."):
        parse(text)


def test_numbers_ascend_and_what_is_missing_is_last():
    values = {"u1": 20, "u2": -5.0, "u3": "clean", "u4": 5, "u5": None, "u6": 5.0}
    found = slices(rate_of([*values, "u7"]), parse("snr"), values)
    assert members(found) == {
        "-5": ["u2"], "5": ["u4", "u6"], "20": ["u1"], "clean": ["u3"], NONE: ["u5", "u7"],
    }  # fmt: skip
    assert list(found) == ["-5", "5", "20", "clean", NONE]


def test_ranges_hold_their_lower_edge():
    values = {"u1": 10, "u2": "0.5", "u3": 9.99, "u4": 1, "u5": 100}
    found = slices(rate_of([*values, "u6"]), parse("duration:1,10"), values)
    assert members(found) == {
        "< 1": ["u2"], "1 - 10": ["u3", "u4"], ">= 10": ["u1", "u5"], NONE: ["u6"]
    }  # fmt: skip
    assert list(found) == ["< 1", "1 - 10", ">= 10", NONE]


@pytest.mark.parametrize("value", ["long", float("nan"), [1], {"s": 1}])
def test_values_that_are_no_number_are_named(value):
    with pytest.raises(EvalError, match=r"'duration' of utterance 'u1' is .*, not a number"):
        slices(rate_of(["u1"]), parse("duration"), {"u1": value})


def test_a_field_that_nobody_has():
    with pytest.raises(EvalError, match="no scored utterance has a field 'noise'"):
        slices(rate_of(["u1"]), parse("noise"), {"u2": "babble"})


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("uvw"), st.none() | st.floats() | st.text(), min_size=1))
def test_slices_are_a_partition(values):
    rate = rate_of(values)
    if all(value is None for value in values.values()):
        return
    found = slices(rate, parse("x"), values)
    assert sorted(u for names in members(found).values() for u in names) == sorted(values)
    assert sum(its.errors for its in found.values()) == rate.errors
