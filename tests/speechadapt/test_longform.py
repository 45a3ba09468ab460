"""Windows cut at silence, joined with the right times, in the right order."""

import itertools
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoding import add_adapter, tiny_model, waves

from speechadapt.decoding import longform, transcriber
from speechadapt.decoding.longform import join, speech_regions, windows
from speechadapt.decoding.search import DecodeOptions, Hypothesis, decode
from speechadapt.decoding.timestamps import Word
from speechadapt.decoding.tokens import Segment
from speechadapt.decoding.transcriber import transcribe
from speechadapt.decoding.vad import FRAME, EnergyVad, load_vad
from speechadapt.errors import ConfigError, RouteError

RATE = 16_000
GREEDY = DecodeOptions(temperatures=(0.0,), language="be", no_speech_threshold=None, max_tokens=12)


def recording(*parts):
    """Speech-like bursts: positive numbers are seconds of sound, negative ones of near silence."""
    generator = np.random.default_rng(0)
    pieces = []
    for seconds in parts:
        noise = generator.standard_normal(round(abs(seconds) * RATE))
        pieces.append(noise * (0.1 if seconds > 0 else 0.0005))
    return np.concatenate(pieces).astype(np.float32)


def never_called(samples):
    raise AssertionError("no detector may see a short recording")


def test_short_recordings_are_one_window_without_a_detector():
    samples = recording(-1, 0.2, -26.8)
    assert windows(samples, never_called) == [(0, len(samples))]
    assert windows(np.zeros(0, np.float32), None) == [(0, 0)]


def test_long_recordings_are_cut_in_the_silence():
    samples = recording(-1, 12, -1, 12, -1, 12, -1, 5, -20, 3, -1)
    spans = windows(samples, EnergyVad())
    assert len(spans) == 3
    seconds = [(start / RATE, end / RATE) for start, end in spans]
    expected = [(0.8, 26.2), (26.8, 45.2), (64.8, 68.2)]
    for got, wanted in zip(seconds, expected, strict=True):
        assert got == pytest.approx(wanted, abs=0.2)


def test_speech_without_pause_is_cut_where_it_is_weakest():
    samples = recording(-5, 70, -5)
    dip = slice(round(25.0 * RATE), round(25.3 * RATE))
    samples[dip] *= 0.1
    spans = windows(samples, EnergyVad())
    assert spans[0][1] / RATE == pytest.approx(25.15, abs=0.3)
    assert spans[-1][1] / RATE > 74.9
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end == start  # nothing is lost between two cuts
    assert all(end - start <= 28 * RATE for start, end in spans)


def test_digital_silence_has_no_window_and_steady_sound_is_all_speech():
    assert windows(np.zeros(40 * RATE, np.float32), EnergyVad()) == []
    spans = windows(recording(40), EnergyVad())
    assert spans[0][0] == 0 and spans[-1][1] == 40 * RATE


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), max_size=300), st.integers(1, 40), st.integers(0, FRAME - 1)
)
def test_windows_are_ordered_fit_and_hold_all_speech(probabilities, limit_frames, short):
    samples = np.zeros(max(0, len(probabilities) * FRAME - short), np.float32)
    limit = (limit_frames + 0.5) * FRAME / RATE
    spans = windows(samples, lambda _: np.array(probabilities, np.float32), limit)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(start >= 0 and end <= len(samples) for start, end in spans)
    assert all(end - start <= limit * RATE for start, end in spans)
    for frame, probability in enumerate(probabilities):
        if probability >= 0.5 and frame * FRAME < len(samples):
            assert any(start <= frame * FRAME < end for start, end in spans)


def test_regions_have_margins_and_never_touch():
    probabilities = np.zeros(200)
    probabilities[50:60] = probabilities[80:90] = 0.9
    probabilities[60:80] = 0.2
    margin = round(0.2 * RATE / FRAME)
    assert speech_regions(probabilities) == [
        (50 - margin, 60 + margin),
        (80 - margin, 90 + margin),
    ]


def test_join_shifts_times():
    first = Hypothesis(
        "a", (1,), "be", 0.9, -0.2, 0.1, 1.0, 0.0, (Segment(0, 2, "a"),), (Word(0.5, 1, " a"),)
    )
    second = Hypothesis("b", (2, 3), "be", 0.8, -0.5, 0.3, 1.5, 0.2, (Segment(0, 1, "b"),), ())
    joined = join([(0, 32_000), (48_000, 64_000)], [first, second])
    assert joined.text == "a b"
    assert joined.tokens == (1, 2, 3)
    assert joined.segments == (Segment(0, 2, "a"), Segment(3, 4, "b"))
    assert joined.words == (Word(0.5, 1, " a"),)
    assert joined.avg_logprob == pytest.approx((2 * -0.2 + 3 * -0.5) / 5)
    assert (joined.no_speech_prob, joined.compression_ratio, joined.temperature) == (0.3, 1.5, 0.2)
    assert join([], []).text == ""
    chinese = [Hypothesis(t, (1,), "zh", None, 0, 0, 0, 0) for t in "你好"]
    assert join([(0, 9), (9, 18)], chinese).text == "你好"


def run(model, items, **settings):
    settings = {"route": None, "options": GREEDY, "trailing_silence": 0.5, **settings}
    return list(transcribe(model, items, vad=EnergyVad, **settings))


def test_results_come_in_order_and_do_not_depend_on_the_batches():
    model = tiny_model(0)
    add_adapter(model, "be", 1)
    lengths = (1.3, 0.3, 2.0, 0.5, 0.9)
    items = [(f"u{i}", wave) for i, wave in enumerate(waves(*lengths))]
    done = []
    found = run(model, items, route="be", batch_seconds=5, progress=done.append)
    assert [t.id for t in found] == [name for name, _ in items]
    assert [t.seconds for t in found] == pytest.approx(lengths)
    assert sum(done) == pytest.approx(sum(lengths)) and len(done) > 1
    for (name, wave), transcript in zip(items, found, strict=True):
        (alone,) = run(model, [(name, wave)], route="be")
        assert alone.hypothesis.tokens == transcript.hypothesis.tokens
    assert run(model, items, route="be", batch_seconds=0.1)[2].text == found[2].text


def test_a_long_recording_is_the_sum_of_its_windows():
    model = tiny_model(0)
    samples = recording(-1, 12, -1, 12, -1, 12, -1)
    (found,) = run(model, [("long", samples)])
    spans = windows(samples, EnergyVad())
    assert len(spans) == 2
    texts = []
    for start, end in spans:
        encoded = model.encode([samples[start:end]], [None], 0.5)
        (part,) = decode(model, encoded, [None], ["be"], GREEDY, [(end - start) / RATE])
        texts.append(part.text)
    assert found.text == " ".join(text for text in texts if text)
    assert found.seconds == pytest.approx(40)
    for segment, (start, end) in zip(found.hypothesis.segments, spans, strict=True):
        assert segment.start == pytest.approx(start / RATE, abs=0.01)
        assert segment.end == pytest.approx(end / RATE, abs=0.01)


def test_a_long_recording_has_one_detected_language():
    model = tiny_model(0)
    options = DecodeOptions(temperatures=(0.0,), no_speech_threshold=None, max_tokens=4)
    samples = recording(-1, 12, -1, 12, -1, 12, -1)
    (found,) = run(model, [("long", samples)], options=options)
    start, end = windows(samples, EnergyVad())[0]
    (first,) = run(model, [("first", samples[start:end])], options=options)
    assert found.hypothesis.language == first.hypothesis.language is not None
    english = tiny_model(0, english=True)
    (found,) = run(english, [("long", samples)], options=options)
    assert found.hypothesis.language is None


def test_a_long_recording_without_speech_is_empty():
    (found,) = run(tiny_model(0), [("silence", np.zeros(40 * RATE, np.float32))])
    assert (found.text, found.hypothesis.segments) == ("", ())
    assert found.seconds == 40


def test_items_are_read_only_so_far_ahead(monkeypatch):
    monkeypatch.setattr(transcriber, "_LOOKAHEAD_SECONDS", 3.0)
    read = []

    def items():
        for i in range(60):
            read.append(i)
            yield f"u{i}", np.zeros(RATE // 2, np.float32)

    results = transcribe(
        tiny_model(0), items(), route=None, options=GREEDY, trailing_silence=0.0, progress=False
    )
    assert next(results).id == "u0"
    assert len(read) == 6


def test_wrong_settings():
    model = tiny_model(0)
    item = [("u", np.zeros(1600, np.float32))]
    with pytest.raises(ConfigError, match="batch_seconds"):
        run(model, item, batch_seconds=0)
    for silence in (-1.0, 31.0, math.nan):
        with pytest.raises(ConfigError, match="trailing silence"):
            run(model, item, trailing_silence=silence)
    with pytest.raises(RouteError, match="no adapter 'be'"):
        run(model, item, route="be")


def test_without_the_network_loudness_is_used_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        vad = load_vad(tmp_path, offline=True)
    assert isinstance(vad, EnergyVad)
    assert "cut by loudness" in caplog.text
    (tmp_path / "silero_vad_16k.onnx").write_bytes(b"damaged")
    assert isinstance(load_vad(tmp_path, offline=True), EnergyVad)


def test_energy_vad_has_one_value_a_frame():
    for count in (0, 1, FRAME, FRAME + 1, 10 * FRAME):
        values = EnergyVad()(np.ones(count, np.float32))
        assert len(values) == math.ceil(count / FRAME)
        assert ((values >= 0) & (values <= 1)).all()


def test_window_leaves_room_for_silence():
    assert longform.WINDOW_SECONDS == 28
