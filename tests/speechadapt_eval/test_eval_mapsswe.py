"""MAPSSWE against NIST's sctk, by hand, and its laws; Holm's correction."""

import json
import math
from pathlib import Path

import pytest
import sctk
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.statistics.mapsswe import mapsswe, of_segments
from speechadapt_eval.statistics.multiple import holm

CORPORA = json.loads((Path(__file__).parent / "fixtures" / "sctk.json").read_text())
WORDS = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)


def rates(texts):
    sides = zip(*texts, strict=True)
    refs, *hyps = ({f"u{i}": text for i, text in enumerate(side)} for side in sides)
    return [score(refs, hyp) for hyp in hyps]


@pytest.mark.parametrize("language", CORPORA)
def test_equals_sctk(language):
    """The same segments, mean, deviation and Z, to all places that sc_stats prints."""
    expected, texts = CORPORA[language]["sctk"], CORPORA[language]["texts"]
    assert len(texts) >= 400
    a, b = rates(texts)
    found = mapsswe(a, b)
    assert found.segments == expected["segments"]
    for name in ("mean", "sd", "z"):
        assert round(getattr(found, name), 3) == expected[name]
    assert math.isclose(found.p, math.erfc(abs(found.z) / math.sqrt(2)))
    for rate, total in zip((a, b), expected["totals"], strict=True):
        # The split of the errors depends on the aligner's costs; their number and the rest do not.
        for name in ("errors", "n_ref", "sentence_errors"):
            assert getattr(rate, name) == total[name]
        assert len(rate.utterances) == total["sentences"]


@pytest.mark.skipif(not sctk.BIN.is_dir(), reason="the Debian package sctk is not installed")
@pytest.mark.parametrize("language", CORPORA)
def test_the_fixture_is_what_sctk_says(language):
    assert sctk.verdict(CORPORA[language]["texts"]) == CORPORA[language]["sctk"]


@pytest.mark.parametrize(
    ("ref", "a", "b", "found"),
    [
        ("a b c d", "a b c d", "a b c d", []),
        ("a b c d e", "x b c d y", "a b c d e", [(1, 0), (1, 0)]),  # two good words part them
        ("a b c d", "x b c y", "a b c d", [(1, 0), (1, 0)]),
        ("a b c", "x b y", "a b c", [(2, 0)]),  # one does not
        ("a b c d", "x b c d", "a b y d", [(1, 1)]),  # both systems must have it right
        ("a b c", "x a b y c", "a b c", [(1, 0), (1, 0)]),  # insertions stand before a word
        ("a b c", "a x b c y", "a b", [(2, 1)]),
        ("", "x", "y z", [(1, 2)]),
        ("a", "", "a", [(1, 0)]),
    ],
)
def test_segments_by_hand(ref, a, b, found):
    expected = of_segments(found)
    ours = mapsswe(*rates([(ref, a, b)]))
    assert (ours.segments, ours.errors_a, ours.errors_b) == (
        expected.segments, expected.errors_a, expected.errors_b,
    )  # fmt: skip


def test_segments_end_with_the_utterance():
    assert mapsswe(*rates([("a", "x", "a"), ("b", "x", "b")])).segments == 2
    assert mapsswe(*rates([("a b", "x y", "a b")])).segments == 1


def test_figures_that_do_not_exist():
    none = of_segments([])
    assert none.segments == 0 and math.isnan(none.mean) and math.isnan(none.p)
    one = of_segments([(3, 1)])
    assert one.mean == 2 and math.isnan(one.sd) and math.isnan(one.z) and math.isnan(one.p)
    alike = of_segments([(1, 0)] * 3)
    assert alike.sd == 0 and alike.z == math.inf and alike.p == 0
    same = of_segments([(1, 1)] * 3)
    assert (same.z, same.p) == (0, 1)
    assert of_segments([(0, 1)] * 3).z == -math.inf


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=6))
def test_laws(texts):
    a, b = rates(texts)
    there, back = mapsswe(a, b), mapsswe(b, a)
    assert there.segments == back.segments
    assert (there.errors_a, there.errors_b) == (a.errors, b.errors)  # no error is lost
    assert (back.errors_a, back.errors_b) == (b.errors, a.errors)
    assert there.p == back.p or math.isnan(there.p)
    assert there.z == -back.z or math.isnan(there.z)
    same = mapsswe(a, a)
    assert same.errors_a == same.errors_b and (same.z == 0 or math.isnan(same.z))


def test_needs_the_same_utterances():
    one, two = score({"u": "a"}, {"u": "a"}), score({"v": "a"}, {"v": "a"})
    with pytest.raises(EvalError, match="different utterances"):
        mapsswe(one, two)


def test_holm_by_hand():
    # The example of Holm's procedure that R's p.adjust gives: p.adjust(p, "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    with_gap = holm([math.nan, 0.02, 0.03])
    assert math.isnan(with_gap[0]) and with_gap[1:] == pytest.approx([0.04, 0.04])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_is_the_step_down_procedure(p_values, level):
    """Rejected one by one, smallest first, each at ``level`` over those that are left."""
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected
