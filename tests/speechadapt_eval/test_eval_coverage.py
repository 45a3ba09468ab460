"""The simulations of eval/bench/interval_coverage.py in small: intervals cover as often as said."""

import pytest

from bench import interval_coverage as bench


@pytest.mark.parametrize("method", ["by_speaker", "rate_difference"])
@pytest.mark.parametrize("count", [8, 20])
def test_intervals_over_speakers(method, count):
    setting = bench.Speakers(count)
    assert 0.91 <= bench.coverage(getattr(bench, method), setting, 400) <= 0.98


def test_without_the_speakers_it_would_be_half():
    assert bench.coverage(bench.by_utterance, bench.Speakers(24), 100) < 0.7


@pytest.mark.parametrize("method", ["mean_score", "score_difference"])
@pytest.mark.parametrize("raters, clips, missing", [(8, 10, 0.0), (12, 20, 0.0), (24, 20, 0.5)])
def test_intervals_over_raters_and_clips(method, raters, clips, missing):
    setting = bench.Listening(raters, clips, missing)
    assert 0.91 <= bench.coverage(getattr(bench, method), setting, 300) <= 0.98
    naive, _ = bench.naive_coverage(setting, 60)
    assert naive < 0.8


def test_screening_finds_who_presses_at_random_and_spares_the_honest():
    found, honest, fixed = bench.screening((2.9, 3.6, 3.7), 30)
    assert found >= 0.85 and honest <= 0.03 and fixed > 0.3
