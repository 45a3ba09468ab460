"""Word times: warping, grouping, and cross-attention equal to transformers' own weights."""

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoding import LANGUAGES, NO_TIMESTAMPS, START, TASKS, add_adapter, tiny_model, waves

from speechadapt.call import running
from speechadapt.decoding import timestamps
from speechadapt.decoding.search import DecodeOptions, decode
from speechadapt.decoding.timestamps import Word, align_words, split_words, warp
from speechadapt.decoding.tokens import Segment, SpecialTokens, split_segments


def cheapest(cost):
    """Cost of the cheapest monotonic path, by trying all."""
    rows, columns = cost.shape
    best = np.full(cost.shape, np.inf)
    for i, j in itertools.product(range(rows), range(columns)):
        before = [best[a, b] for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if min(a, b) >= 0]
        best[i, j] = cost[i, j] + (min(before) if before else 0)
    return best[-1, -1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 10_000))
def test_warp_finds_the_cheapest_monotonic_path(rows, columns, seed):
    cost = np.random.default_rng(seed).normal(size=(rows, columns))
    i, j = warp(cost)
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, rows - 1, columns - 1)
    steps = set(zip(np.diff(i).tolist(), np.diff(j).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert cost[i, j].sum() == pytest.approx(cheapest(cost))


def test_words_start_where_the_path_enters_their_tokens():
    cost = np.ones((3, 10))
    cost[0, :4] = cost[1, 4:7] = cost[2, 7:] = -1
    assert timestamps._token_starts(cost).tolist() == pytest.approx([0, 0.08, 0.14])


def words_of(text, language="be"):
    tokenizer = tiny_model(0).backbone.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = split_words(tokenizer, ids, language)
    assert "".join(piece for piece, _ in pieces) == text
    assert sum(count for _, count in pieces) == len(ids)
    return [piece for piece, _ in pieces]


def test_grouping_by_spaces_punctuation_and_characters():
    assert words_of(" Жаба, жук!") == [" Жаба", ",", " жук", "!"]
    assert words_of(" сям'я па-мо") == [" сям", "'я", " па", "-мо"]
    assert words_of("你好", "zh") == ["你", "好"]
    assert words_of("你好", "be") == ["你好"]


def test_broken_characters_at_the_end_are_kept():
    tokenizer = tiny_model(0).backbone.tokenizer
    pieces = split_words(tokenizer, [104, 105, 208], "be")
    assert sum(count for _, count in pieces) == 3


def test_punctuation_joins_its_word_without_lengthening_it():
    words = [
        Word(0.0, 0.5, " Он"),
        Word(0.5, 0.6, ","),
        Word(0.6, 0.7, " («"),
        Word(0.6, 0.7, " ("),
        Word(0.7, 0.9, "жук"),
        Word(0.9, 1.2, ")."),
    ]
    merged = timestamps._with_punctuation(words)
    assert merged == [
        Word(0.0, 0.5, " Он,"),
        Word(0.6, 0.7, " («"),
        Word(0.7, 0.9, " (жук)."),
    ]


def test_apostrophes_and_hyphens_stay_inside_their_word():
    parts = [Word(0.0, 0.5, " сям"), Word(0.5, 0.6, "'я"), Word(0.7, 0.8, " 'х"), Word(0.8, 1, "'")]
    assert timestamps._with_punctuation(parts) == [
        Word(0.0, 0.6, " сям'я"),
        Word(0.7, 0.8, " 'х'"),
    ]


def test_attention_scores_equal_transformers_own_weights():
    model = tiny_model(0)
    add_adapter(model, "be", 1)
    routes = ["be", "be"]
    encoded = model.encode(waves(1.0, 1.0), routes, 0.5)
    tokens = torch.randint(0, 256, (2, 9))
    with torch.no_grad(), running(model.call(routes, encoded)):
        ours = timestamps._attention_scores(model.backbone, tokens, encoded).softmax(-1)
        network = model.backbone.model
        network.set_attn_implementation("eager")
        weights = network.model.decoder(
            input_ids=tokens, encoder_hidden_states=encoded.states, output_attentions=True
        ).cross_attentions
    expected = torch.stack([weights[0][:, 1], weights[1][:, 0], weights[1][:, 3]], dim=1)
    torch.testing.assert_close(ours, expected)


def test_models_without_alignment_heads_use_the_upper_half():
    model = tiny_model(0, listed_heads=False)
    assert timestamps.alignment_heads(model.backbone) == {1: [0, 1, 2, 3]}
    assert timestamps.alignment_heads(tiny_model(0).backbone) == {0: [1], 1: [0, 3]}


def test_words_cover_the_text_in_order_and_do_not_depend_on_the_batch():
    model = tiny_model(0)
    add_adapter(model, "be", 1)
    lengths, routes = (0.4, 1.3, 0.9), [None, "be", None]
    prompt = [START, LANGUAGES["<|be|>"], TASKS["transcribe"], NO_TIMESTAMPS]
    texts = [list(b" a bc"), list(" Жук, d e.".encode()), []]

    def align(index):
        some = [routes[i] for i in index]
        encoded = model.encode([waves(*lengths)[i] for i in index], some, 0.5)
        return align_words(
            model,
            encoded,
            some,
            [prompt] * len(index),
            [texts[i] for i in index],
            ["be"] * len(index),
            [lengths[i] for i in index],
        )

    together = align([0, 1, 2])
    assert together == [align([0])[0], align([1])[0], ()]
    for words, text, seconds in zip(together, texts, lengths, strict=True):
        assert "".join(word.text for word in words).encode() == bytes(text)
        times = [t for word in words for t in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= t <= seconds for t in times)
    assert [w.text for w in together[1]] == [" Жук,", " d", " e."]


def test_other_threads_are_not_watched():
    model = tiny_model(0)
    encoded = model.encode(waves(0.5), [None], 0.5)
    tokens = torch.randint(0, 256, (1, 5))
    attention = model.backbone.model.model.decoder.layers[0].encoder_attn
    with timestamps._watching({0: attention}) as seen:
        thread = threading.Thread(target=model.backbone.decoder_states, args=(tokens, encoded))
        thread.start()
        thread.join()
        assert not seen
        model.backbone.decoder_states(tokens, encoded)
        assert set(seen) == {"0.q_proj", "0.k_proj"}
    assert not attention.q_proj._forward_hooks


def test_segments_from_timestamp_tokens():
    model = tiny_model(0)
    special = SpecialTokens.of(model.backbone.generation)
    zero = special.first_timestamp

    def split(*tokens, seconds=10.0):
        return split_segments(model.backbone.tokenizer, tokens, special, seconds)

    a, b = list(b" ab"), list(b" c")
    assert split(*a) == (Segment(0, 10, "ab"),)
    assert split(zero, *a, zero + 50, zero + 60, *b, zero + 100) == (
        Segment(0, 1, "ab"),
        Segment(1.2, 2, "c"),
    )
    assert split(zero, *a, zero + 50, zero + 60, *b) == (Segment(0, 1, "ab"), Segment(1.2, 10, "c"))
    assert split(zero + 600, *a, zero + 700, seconds=5.0) == (Segment(5, 5, "ab"),)
    assert split(zero, zero + 1) == split() == ()


def test_decode_returns_words_and_segments():
    model = tiny_model(0)
    encoded = model.encode(waves(0.9, 1.3), [None] * 2, 0.5)
    options = DecodeOptions(
        temperatures=(0.0,), no_speech_threshold=None, word_timestamps=True, timestamps=True
    )
    for found in decode(model, encoded, [None] * 2, ["be"] * 2, options, [0.9, 1.3]):
        assert found.text == "".join(word.text for word in found.words).strip()
        assert " ".join(s.text for s in found.segments).replace(" ", "") == found.text.replace(
            " ", ""
        )
