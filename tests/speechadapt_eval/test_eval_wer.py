"""Error counts: by hand, against jiwer, and by laws that hold for any text."""

import itertools
import math
from collections import Counter

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import ErrorRate, EvalError, Utterance, align, score
from speechadapt_eval.transcripts.align import SPLITS
from speechadapt_eval.transcripts.tokens import UNITS

WORDS = st.sampled_from(["a", "b", "дом", "м'яч", "हिन्दी", "שָׁלוֹם", "เสียง", "e\u0301", "家"])
SPACED = str.maketrans("เสียง家", "abcdef")  # jiwer counts every space, also beside these letters
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)
CORPORA = st.dictionaries(st.text("uvw12", min_size=1), st.tuples(TEXTS, TEXTS), min_size=1)


def split(corpus):
    return {k: r for k, (r, _) in corpus.items()}, {k: h for k, (_, h) in corpus.items()}


def test_by_hand():
    refs = {"u2": "the cat sat on the mat", "u1": "Hello, world!", "u3": "yes"}
    hyps = {"u1": "hello world", "u3": "oh yes", "u2": "the cat sit on mat"}
    rate = score(refs, hyps)
    assert [u.id for u in rate.utterances] == ["u1", "u2", "u3"]
    assert (rate.hits, rate.substitutions, rate.deletions, rate.insertions) == (7, 1, 1, 1)
    assert (rate.errors, rate.n_ref, rate.sentence_errors) == (3, 9, 2)
    assert rate.rate == 3 / 9 and rate.sentence_rate == 2 / 3
    assert [u.errors for u in rate.utterances] == [0, 2, 1]
    assert rate.alignment(rate.utterances[1]) == [
        ("equal", "the", "the"),
        ("equal", "cat", "cat"),
        ("substitute", "sat", "sit"),
        ("equal", "on", "on"),
        ("delete", "the", ""),
        ("equal", "mat", "mat"),
    ]


def test_kaldi_lines_byte_for_byte():
    refs = {f"u{i}": "a b c d e f g h" for i in range(3)}
    hyps = {"u0": "a b c d e f g h", "u1": "x b c d e f h", "u2": "a b c d e f g h i"}
    rate = score(refs, hyps)
    assert rate.kaldi_line() == "%WER 12.50 [ 3 / 24, 1 ins, 1 del, 1 sub ]"
    assert rate.kaldi_lines() == (
        "%WER 12.50 [ 3 / 24, 1 ins, 1 del, 1 sub ]\n"
        "%SER 66.67 [ 2 / 3 ]\n"
        "Scored 3 sentences, 0 not present in hyp."
    )
    del hyps["u1"]
    assert score(refs, hyps, mode="all").kaldi_lines() == (
        "%WER 37.50 [ 9 / 24, 1 ins, 8 del, 0 sub ] [PARTIAL]\n"
        "%SER 66.67 [ 2 / 3 ]\n"
        "Scored 3 sentences, 1 not present in hyp."
    )
    assert score(refs, hyps, mode="present").kaldi_lines() == (
        "%WER 6.25 [ 1 / 16, 1 ins, 0 del, 0 sub ] [PARTIAL]\n"
        "%SER 50.00 [ 1 / 2 ]\n"
        "Scored 2 sentences, 1 not present in hyp."
    )


def test_kaldi_line_of_kaldis_manual():
    # The line that Kaldi's documentation shows.
    counts = Utterance("u", "", "", 20138 - 330 - 2020, 2020, 330, 358)
    rate = ErrorRate("word", "none", "strict", (counts,))
    assert rate.kaldi_line() == "%WER 13.45 [ 2708 / 20138, 358 ins, 330 del, 2020 sub ]"


def test_strict_names_what_differs():
    refs = {f"r{i}": "x" for i in range(5)} | {"both": "x"}
    with pytest.raises(EvalError) as caught:
        score(refs, {"both": "x", "odd": "x"})
    assert str(caught.value) == (
        "references and hypotheses differ: 5 ids have no hypothesis ('r0', 'r1', 'r2' and 2 more); "
        "1 ids have no reference ('odd'); choose mode 'present' or 'all' to score them nevertheless"
    )
    rate = score(refs, {"both": "x", "odd": "x"}, mode="present")
    assert rate.extra == ("odd",) and len(rate.missing) == 5 and rate.n_ref == 1


@pytest.mark.parametrize("mode", ["present", "strict", "all"])
def test_nothing_to_score(mode):
    with pytest.raises(EvalError, match="nothing to score"):
        score({}, {}, mode=mode)


@pytest.mark.parametrize("option", ["unit", "mode", "normalize"])
def test_unknown_options_list_the_known(option):
    with pytest.raises(EvalError, match="choose one of"):
        score({"u": "a"}, {"u": "a"}, **{option: "nonsense"})


def test_empty_references():
    rate = score({"beep": "...", "u": "a b"}, {"beep": "thank you", "u": ""})
    assert [(u.errors, u.n_ref, u.insertions) for u in rate.utterances] == [(2, 0, 2), (2, 2, 0)]
    assert rate.rate == 2.0 and rate.reason == ""
    assert rate.utterances[0].rate == math.inf
    silent = score({"beep": "..."}, {"beep": "thank you"})
    assert math.isnan(silent.rate) and "(2)" in silent.reason
    assert silent.kaldi_line() == "%WER nan [ 2 / 0, 2 ins, 0 del, 0 sub ]"
    assert score({"beep": ""}, {"beep": ""}).utterances[0].rate == 0


def test_characters_count_the_space_and_say_so_in_the_line():
    rate = score({"u": "ab cd"}, {"u": "abcd"}, unit="char")
    assert rate.rate == jiwer.cer("ab cd", "abcd") == 0.2
    assert rate.kaldi_line() == "%CER 20.00 [ 1 / 5, 0 ins, 1 del, 0 sub ]"
    assert align("ab", "b", "char") == [("delete", "a", ""), ("equal", "b", "b")]


def test_a_very_long_line():
    text = "слова " * 950_000  # more than 10 MB
    assert score({"u": text}, {"u": text + "канец"}).errors == 1
    assert score({"u": text}, {"u": text + "канец"}, split="kaldi").insertions == 1
    text = text[: len(text) // 10]
    assert score({"u": text}, {"u": text[:-2]}, unit="char").errors == 1


@settings(max_examples=100, deadline=None)
@given(CORPORA)
def test_agrees_with_jiwer(corpus):
    refs, hyps = split(corpus)
    left, right = list(refs.values()), list(hyps.values())
    rate = score(refs, hyps, normalize="none")
    theirs = jiwer.process_words(left, right)
    ours = (rate.hits, rate.substitutions, rate.deletions, rate.insertions)
    assert ours == (theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
    refs, hyps = ({k: v.translate(SPACED) for k, v in side.items()} for side in (refs, hyps))
    left, right = list(refs.values()), list(hyps.values())
    chars = score(refs, hyps, normalize="none", unit="char")
    assert chars.errors == sum(
        (c := jiwer.process_characters(r, h)).substitutions + c.deletions + c.insertions
        for r, h in zip(left, right, strict=True)
    )
    if rate.n_ref:
        assert math.isclose(rate.rate, theirs.wer)
        assert math.isclose(chars.rate, jiwer.cer(left, right))


@settings(max_examples=100, deadline=None)
@given(CORPORA, st.randoms(use_true_random=False))
def test_the_order_of_lines_changes_nothing(corpus, random):
    refs, hyps = split(corpus)
    names = list(corpus)
    random.shuffle(names)
    again = score({k: refs[k] for k in names}, {k: hyps[k] for k in reversed(names)})
    assert again == score(refs, hyps)


@settings(max_examples=100, deadline=None)
@given(CORPORA)
def test_laws(corpus):
    refs, hyps = split(corpus)
    for unit, whose in itertools.product(("word", "char", "mixed"), SPLITS):
        options = {"unit": unit, "split": whose}
        assert score(refs, refs, **options).errors == 0
        there, back = score(refs, hyps, **options), score(hyps, refs, **options)
        assert there.errors == back.errors
        assert there.deletions - there.insertions == back.insertions - back.deletions
        assert there.n_ref == there.hits + there.substitutions + there.deletions
        assert back.n_ref == there.hits + there.substitutions + there.insertions
        for u, ops in there.alignments():
            assert ops == there.alignment(u) == align(u.ref, u.hyp, unit, whose)
            assert [op.ref for op in ops if op.ref] == UNITS[unit](u.ref)
            assert [op.hyp for op in ops if op.hyp] == UNITS[unit](u.hyp)
            kinds = Counter(op.kind for op in ops)
            assert kinds == Counter(
                equal=u.hits, substitute=u.substitutions, delete=u.deletions, insert=u.insertions
            )
            assert all((op.kind == "equal") == (op.ref == op.hyp) for op in ops)
