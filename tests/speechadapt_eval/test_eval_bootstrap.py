"""Intervals: their coverage where the truth is known, their limits, and the degenerate cases."""

import math

import numpy as np
import pytest
import scipy.stats

from speechadapt_eval import (
    EvalError,
    confidence_interval,
    interval_of,
    paired_difference,
    score,
)


def corpus(rates, words=10):
    """Systems with given errors for each utterance."""
    refs = {f"u{i:03}": " ".join(["w"] * words) for i in range(len(rates))}
    hyps = {f"u{i:03}": " ".join(["x"] * e + ["w"] * (words - e)) for i, e in enumerate(rates)}
    return score(refs, hyps)


def test_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        n_ref = rng.integers(3, 20, size=150)
        low_high = confidence_interval(rng.binomial(n_ref, 0.3), n_ref, samples=400)
        hits += low_high.low <= 0.3 <= low_high.high
    assert 0.90 <= hits / 200 <= 0.99


def test_speakers_are_resampled_as_a_whole():
    rng = np.random.default_rng(2)
    by_speaker = by_utterance = 0
    for _ in range(150):
        skill = np.clip(rng.normal(0.3, 0.06, size=24), 0.02, 0.9)
        n_ref = np.full(24 * 40, 8)
        speakers = np.repeat([f"s{i}" for i in range(24)], 40)
        errors = rng.binomial(n_ref, np.repeat(skill, 40))
        a = confidence_interval(errors, n_ref, list(speakers), samples=400)
        b = confidence_interval(errors, n_ref, samples=400)
        by_speaker += a.low <= 0.3 <= a.high
        by_utterance += b.low <= 0.3 <= b.high
    assert by_speaker / 150 > 0.88
    assert by_utterance / 150 < 0.75  # what the note warns of


def test_says_what_it_does_not_cover():
    errors, n_ref = [1, 2, 0, 3], [5, 5, 5, 5]
    none = confidence_interval(errors, n_ref)
    assert none.method == "t over 4 utterances" and "other speakers" in none.note
    one = confidence_interval(errors, n_ref, ["s"] * 4)
    assert one.method == none.method and "only one" in one.note
    assert (one.low, one.high) == (none.low, none.high)
    few = confidence_interval(errors, n_ref, ["s", "s", "t", "t"])
    assert few.method == "t over 2 speakers" and few.n_clusters == 2 and few.note == ""
    many = confidence_interval([1, 2] * 20, [5] * 40, [f"s{i % 25}" for i in range(40)])
    assert many.method == "bootstrap over 25 speakers" and many.note == ""
    assert confidence_interval([1, 2] * 10, [5] * 20).method == "bootstrap over 20 utterances"


def test_few_units_have_the_textbook_interval():
    """With units of one size the jackknife's t is the t interval of their rates."""
    rng = np.random.default_rng(7)
    for units in (2, 3, 8, 19):
        errors = rng.integers(20, 60, size=units)
        ours = confidence_interval(errors, [100] * units, level=0.9)
        low, high = scipy.stats.t.interval(
            0.9, units - 1, np.mean(errors / 100), scipy.stats.sem(errors / 100)
        )
        assert math.isclose(ours.low, max(0, low), abs_tol=1e-12)
        assert math.isclose(ours.high, high)


def test_few_pairs_have_the_textbook_interval():
    a, b = [5, 3, 6, 4, 7, 2], [4, 3, 4, 4, 5, 2]
    paired = paired_difference(corpus(a), corpus(b))
    theirs = scipy.stats.ttest_rel(b, a)
    interval = theirs.confidence_interval()
    assert paired.method == "paired t over 6 utterances"
    assert math.isclose(paired.low, interval.low / 10)
    assert math.isclose(paired.high, interval.high / 10)
    assert math.isclose(paired.p_improvement, 1 - theirs.pvalue / 2)


def test_few_units_of_unlike_size_have_the_jackknife():
    errors, n_ref = np.array([3, 40, 11]), np.array([10, 100, 25])
    without = [(54 - e) / (135 - n) for e, n in zip(errors, n_ref, strict=True)]
    spread = math.sqrt(2 / 3 * sum((rate - 54 / 135) ** 2 for rate in without))
    ours = confidence_interval(errors, n_ref, ["a", "b", "c"])
    assert math.isclose(ours.high, 54 / 135 + 4.302652729696142 * spread)


def test_is_reproducible_whatever_the_order_and_the_chunks(monkeypatch):
    rng = np.random.default_rng(3)
    n_ref = rng.integers(1, 30, size=300)
    errors = rng.binomial(n_ref, 0.4)
    speakers = rng.integers(0, 40, size=300).astype(str)
    order = rng.permutation(300)
    one = confidence_interval(errors, n_ref, list(speakers), samples=2000)
    assert one == confidence_interval(
        errors[order], n_ref[order], list(speakers[order]), samples=2000
    )
    monkeypatch.setattr("speechadapt_eval.statistics.bootstrap._CELLS", 50)
    assert one == confidence_interval(errors, n_ref, list(speakers), samples=2000)
    assert one != confidence_interval(errors, n_ref, list(speakers), samples=2000, seed=1)


def test_agrees_with_resampling_one_by_one():
    rng = np.random.default_rng(4)
    n_ref = rng.integers(1, 12, size=80)
    errors = rng.binomial(n_ref, 0.3)
    drawn = rng.integers(0, 80, size=(20_000, 80))
    replicates = errors[drawn].sum(1) / n_ref[drawn].sum(1)
    # Expanded: the tail beyond sqrt(n / (n - 1)) times Student's quantile, read from the normal.
    tail = scipy.stats.norm.cdf(math.sqrt(80 / 79) * scipy.stats.t.ppf(0.025, 79))
    ours = confidence_interval(errors, n_ref, samples=20_000)
    assert np.allclose([ours.low, ours.high], np.quantile(replicates, [tail, 1 - tail]), atol=0.002)
    plain = np.quantile(replicates, [0.025, 0.975])
    assert 1.0 < (ours.high - ours.low) / (plain[1] - plain[0]) < 1.06


def test_no_errors_and_nothing_but_errors():
    perfect = confidence_interval([0, 0], [50, 50])
    assert perfect.low == 0 and math.isclose(perfect.high, 3.8415 / 103.8415, rel_tol=1e-4)
    assert perfect.method == "Wilson over 100 tokens"
    wrong = confidence_interval([50, 50], [50, 50])
    assert wrong.high == 1 and math.isclose(wrong.low, 1 - perfect.high)
    # A rate of exactly 1 that varies is no degenerate case.
    assert confidence_interval([5, 15] * 10, [10, 10] * 10).method.startswith("bootstrap")


def test_lengths_must_match():
    with pytest.raises(EvalError, match="2 error counts but 1 reference lengths"):
        confidence_interval([1, 2], [3])


def test_too_little_for_an_interval():
    one = confidence_interval([3], [7])
    assert math.isnan(one.low) and math.isnan(one.high) and "one utterance" in one.note
    silent = confidence_interval([3, 0], [0, 0])
    assert math.isnan(silent.low) and silent.note == "no reference token"
    alone = confidence_interval([1, 1, 0], [0, 4, 0])
    assert math.isnan(alone.low) and math.isnan(alone.high)
    assert "one of the utterances has all the reference tokens" in alone.note
    sparse = confidence_interval([1] + [1, 0] * 10, [0] + [4, 0] * 10, samples=2000)
    assert math.isfinite(sparse.low) and math.isfinite(sparse.high)


@pytest.mark.parametrize(
    "options",
    [{"clusters": ["s"]}, {"samples": 0}, {"level": 1.0}, {"level": 95}],
)
def test_refuses_nonsense(options):
    with pytest.raises(EvalError):
        confidence_interval([1, 2], [3, 4], **options)


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(5)
    a = rng.integers(3, 9, size=60)
    better = corpus(a - rng.integers(0, 3, size=60))
    base = corpus(a)
    paired = paired_difference(base, better)
    assert paired.delta == better.rate - base.rate < 0
    assert paired.low <= paired.delta <= paired.high < 0
    assert paired.significant and paired.p_improvement == 1.0 and paired.non_inferior(0.0)
    alone = interval_of(base)
    assert paired.high - paired.low < alone.high - alone.low
    back = paired_difference(better, base)
    assert back.delta == -paired.delta and back.p_improvement == 0
    assert not back.non_inferior(0.015) and back.non_inferior(0.5)
    speakers = {u.id: f"s{i % 30}" for i, u in enumerate(base.utterances)}
    by_speaker = paired_difference(base, better, speakers)
    assert by_speaker.method == "paired bootstrap over 30 speakers" and by_speaker.note == ""


def test_paired_with_itself_and_with_too_little():
    base = corpus([1, 2, 3])
    same = paired_difference(base, base)
    assert (same.delta, same.low, same.high, same.p_improvement) == (0, 0, 0, 0)
    assert not same.significant and same.non_inferior(0)
    single = paired_difference(corpus([1]), corpus([2]))
    assert math.isnan(single.low) and not single.non_inferior(1) and not single.significant


def test_paired_refuses_what_cannot_be_paired():
    base = corpus([1, 2, 3])
    with pytest.raises(EvalError, match="'u003'"):
        paired_difference(base, corpus([1, 2, 3, 4]))
    other = score({u.id: "another text" for u in base.utterances}, {"u000": ""}, mode="all")
    with pytest.raises(EvalError, match="different references, first at 'u000'"):
        paired_difference(base, other)
    refs = {u.id: u.ref for u in base.utterances}
    with pytest.raises(EvalError, match="cannot compare"):
        paired_difference(base, score(refs, refs, unit="char"))
    with pytest.raises(EvalError, match="1 scored utterances have no speaker \\('u002'\\)"):
        paired_difference(base, base, {"u000": "s", "u001": "t"})


def test_a_hundred_thousand_utterances_are_quick():
    rng = np.random.default_rng(6)
    n_ref = rng.integers(1, 40, size=100_000)
    errors = rng.binomial(n_ref, 0.2)
    interval = confidence_interval(errors, n_ref, samples=1000)
    assert interval.low < errors.sum() / n_ref.sum() < interval.high
    assert interval.high - interval.low < 0.003
