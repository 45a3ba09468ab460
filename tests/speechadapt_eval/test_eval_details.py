"""Tables behind a rate; files in other scorers' formats, byte for byte as those document them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.io import read_trn
from speechadapt_eval.transcripts.details import (
    confusions,
    kaldi_per_spk,
    kaldi_per_utt,
    speaker_rows,
    trn_lines,
    utterance_lines,
)


def test_kaldi_files_of_the_example_in_its_documentation():
    rate = score(
        {"UTT-A": "word-A word-B word-C word-D word-E"},
        {"UTT-A": "word-A word-A word-B word-D word-X"},
        normalize="none",
        split="kaldi",
    )
    assert "".join(kaldi_per_utt(rate)) == (  # wer_per_utt_details.pl, with the symbol ***
        "UTT-A ref  word-A    ***   word-B  word-C  word-D  word-E\n"
        "UTT-A hyp  word-A  word-A  word-B    ***   word-D  word-X\n"
        "UTT-A op      C       I       C       D       C       S  \n"
        "UTT-A #csid 3 1 1 1\n"
    )
    assert "".join(kaldi_per_spk(rate, {"UTT-A": "A"})) == (  # wer_per_spk_details.pl
        "SPEAKER         id       #SENT      #WORD       Corr        Sub        Ins        Del"
        "        Err      S.Err\n"
        "A               raw          1          5          3          1          1          1"
        "          3          1\n"
        "A               sys          1          5      60.00      20.00      20.00      20.00"
        "      60.00     100.00\n"
        "SUM             raw          1          5          3          1          1          1"
        "          3          1\n"
        "SUM             sys          1          5      60.00      20.00      20.00      20.00"
        "      60.00     100.00\n"
    )


def test_kaldi_files_of_empty_texts_and_long_names():
    rate = score({"a": "", "b": "", "c": "x"}, {"a": "", "b": "yes y", "c": "x"})
    assert list(kaldi_per_utt(rate))[:8] == [
        "a ref  \n", "a hyp  \n", "a op   \n", "a #csid 0 0 0 0\n",
        "b ref  ***  ***\n", "b hyp  yes   y \n", "b op    I    I \n", "b #csid 0 0 2 0\n",
    ]  # fmt: skip
    speaker = "a_very_long_speaker"
    lines = list(kaldi_per_spk(rate, {"a": "s1", "b": "s1", "c": speaker}))
    assert [line.split()[:2] for line in lines] == [
        ["SPEAKER", "id"], [speaker, "raw"], [speaker, "sys"], ["s1", "raw"],  # no words: no sys
        ["SUM", "raw"], ["SUM", "sys"],
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split()[2:] == [
        "3",
        "1",
        "100.00",
        "0.00",
        "200.00",
        "0.00",
        "200.00",
        "33.33",
    ]


def test_space_tokens_are_visible():
    rate = score({"u": "ab cd"}, {"u": "abcd"}, unit="char")
    assert next(kaldi_per_utt(rate)) == "u ref  a  b   ▁   c  d\n"
    assert list(trn_lines(rate, "ref")) == ["a b ▁ c d (u)\n"]


def test_confusions_count_words_one_by_one():
    rate = score(
        {"u1": "a b c d", "u2": "b c", "u3": "x"}, {"u1": "a x y d e", "u2": "x c", "u3": ""}
    )
    found = confusions(rate)
    assert found.substitutions == {("b", "x"): 2, ("c", "y"): 1}
    assert found.deletions == {"x": 1} and found.insertions == {"e": 1}
    assert found.rows() == [
        ("substitution", "b", "x", 2), ("substitution", "c", "y", 1),
        ("deletion", "x", "", 1), ("insertion", "", "e", 1),
    ]  # fmt: skip
    assert found.rows(1) == [found.rows()[i] for i in (0, 2, 3)]


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "家"]), max_size=6).map(" ".join)
CORPORA = st.dictionaries(st.text("uvw-1", min_size=1), st.tuples(TEXTS, TEXTS), min_size=1)


@settings(max_examples=60, deadline=None)
@given(CORPORA, st.sampled_from(["word", "char", "mixed"]), st.sampled_from(["jiwer", "kaldi"]))
def test_all_tables_add_up_to_the_rate(corpus, unit, split):
    refs, hyps = ({name: pair[side] for name, pair in corpus.items()} for side in (0, 1))
    rate = score(refs, hyps, unit=unit, split=split)
    split_counts = (rate.substitutions, rate.deletions, rate.insertions)
    found = confusions(rate)
    sums = (found.substitutions, found.deletions, found.insertions)
    assert tuple(sum(counts.values()) for counts in sums) == split_counts
    speakers = {name: name[0] for name in corpus}
    rows = speaker_rows(rate, speakers)
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:-1]]
    assert totals == [
        len(rate.utterances), rate.sentence_errors, rate.n_ref, rate.errors, rate.hits,
        *split_counts,
    ]  # fmt: skip
    lines = [json.loads(line) for line in utterance_lines(rate)]
    for kind, count in zip("SDI", split_counts, strict=True):
        assert sum(op[0] == kind for line in lines for op in line["ops"]) == count
    assert [line["id"] for line in lines] == [u.id for u in rate.utterances]


def test_utterance_lines():
    rate = score({"u1": "Да, так!", "u2": ""}, {"u1": "так", "u2": "но"})
    first, second = utterance_lines(rate, {"u1": "be"}, {"u1": {"snr": 5, "id": "other"}})
    assert json.loads(first) == {
        "snr": 5, "id": "u1", "lang": "be", "ref": "да так", "hyp": "так", "unit": "word",
        "errors": 1, "n_ref": 2, "hits": 1, "substitutions": 0, "deletions": 1, "insertions": 0,
        "rate": 0.5, "ops": [["D", "да", ""], ["C", "так", "так"]],
    }  # fmt: skip
    assert json.loads(second)["rate"] is None and second.endswith("}\n")


def test_trn(tmp_path):
    rate = score({"a_1": "Да, так!", "s2-b": "", "c": "x"}, {"a_1": "так", "s2-b": "", "c": "y"})
    speakers = {"a_1": "s1", "s2-b": "s2", "c": "s1"}
    lines = list(trn_lines(rate, "ref", speakers))
    assert lines == ["да так (s1-a_1)\n", "x (s1-c)\n", " (s2-b)\n"]
    path = tmp_path / "ref.trn"
    path.write_text("".join(lines), encoding="utf-8")
    assert read_trn(path) == {"s1-a_1": "да так", "s1-c": "x", "s2-b": ""}


@pytest.mark.parametrize("text", ["(uh) yes", "{ a / b }", "a @ b", ";; a"])
def test_trn_refuses_tokens_that_mean_something_there(text):
    rate = score({"u": text}, {"u": "a"}, normalize="none")
    with pytest.raises(EvalError, match=r"'u': .* has a meaning of its own in trn"):
        list(trn_lines(rate, "ref"))


def test_trn_refuses_ids_that_cannot_be_read_back():
    rate = score({"u)": "a"}, {"u)": "a"})
    with pytest.raises(EvalError, match="id 'u\\)' cannot be in a trn file"):
        list(trn_lines(rate, "hyp"))


@pytest.mark.parametrize("table", [speaker_rows, kaldi_per_spk])
def test_tables_by_speaker_need_all_speakers(table):
    rate = score({"u": "a", "v": "a"}, {"u": "a", "v": "a"})
    with pytest.raises(EvalError, match=r"1 scored utterances have no speaker \('v'\)"):
        list(table(rate, {"u": "s"}))
