"""Token units: what counts as one, in scripts with and without spaces between words."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, score
from speechadapt_eval.transcripts.tokens import CHARACTER_LANGUAGES, UNITS, unit_of


@pytest.mark.parametrize(
    ("text", "characters", "mixed"),
    [
        ("ab cd", "ab cd", ["ab", "cd"]),
        ("我 爱 北京", "我爱北京", [*"我爱北京"]),
        ("我用 iPhone 手机 ok go", "我用iPhone手机ok go", [*"我用", "iPhone", *"手机", "ok", "go"]),
        ("すし テーブル", "すしテーブル", [*"すしテーブル"]),
        ("ไป กิน", "ไปกิน", [*"ไปกิน"]),
        ("ສະບາຍ ດີ", "ສະບາຍດີ", [*"ສະບາຍດີ"]),
        ("မင်္ဂ လာပါ", "မင်္ဂလာပါ", [*"မင်္ဂလာပါ"]),
        ("សួស្តី ok", "សួស្តីok", [*"សួស្តី", "ok"]),
        ("안녕 하세요", "안녕 하세요", ["안녕", "하세요"]),
        ("हिन्दी में", "हिन्दी में", ["हिन्दी", "में"]),
        ("שָׁלוֹם عليكم", "שָׁלוֹם عليكم", ["שָׁלוֹם", "عليكم"]),
        ("  ", "", []),
        ("", "", []),
    ],
)
def test_tokens(text, characters, mixed):
    assert "".join(UNITS["char"](text)) == characters
    assert UNITS["mixed"](text) == mixed


def test_mixed_takes_every_letter_of_those_scripts_and_no_other():
    names = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA", "HENTAIGANA", "BOPOMOFO", "THAI",
             "LAO", "MYANMAR", "KHMER", "HALFWIDTH KATAKANA")  # fmt: skip
    for code in range(0x80, 0x30000):
        letter = chr(code)
        if unicodedata.category(letter)[0] != "L" or not unicodedata.name(letter, ""):
            continue
        alone = UNITS["mixed"](f"a{letter}b") == ["a", letter, "b"]
        if unicodedata.name(letter).startswith(names):
            assert alone, unicodedata.name(letter)
        elif alone:  # what the blocks hold beside: marks of repetition, closing signs
            assert "IDEOGRAPH" in unicodedata.name(letter) or code < 0x3100, hex(code)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_unit_loses_or_adds_a_character(text):
    for unit in UNITS.values():
        assert "".join("".join(unit(text)).split()) == "".join(text.split())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"我爱ไป家", "ok", "go"])), st.data())
def test_spaces_beside_letters_of_such_scripts_do_not_count(tokens, data):
    spaced = " ".join(tokens)
    joined = ""
    for token in tokens:
        needed = joined[-1:].isascii() and token.isascii() and joined
        joined += (" " if needed or data.draw(st.booleans()) else "") + token
    for unit in ("char", "mixed"):
        assert score({"u": spaced}, {"u": joined}, unit=unit, normalize="none").errors == 0


@pytest.mark.parametrize(
    ("language", "unit"),
    [("zh", "char"), ("zh-TW", "char"), ("cmn_hans_cn", "char"), ("JA", "char"), ("th", "char"),
     ("lo", "char"), ("my", "char"), ("km", "char"), ("yue", "char"), ("ko", "word"),
     ("vi", "word"), ("be", "word"), ("hi", "word"), ("thx", "word")],
)  # fmt: skip
def test_unit_of_languages(language, unit):
    assert unit_of(language) == unit


def test_auto_takes_the_unit_of_each_language_and_names_the_rate():
    refs = {"b": "добры дзень", "t": "สวัสดี", "z": "我爱你"}
    hyps = {"b": "добры день", "t": "สวัสดี", "z": "我 你"}
    languages = {"b": "be", "t": "th", "z": "zh-CN"}
    rate = score(refs, hyps, unit="auto", languages=languages)
    assert [u.unit for u in rate.utterances] == ["word", "char", "char"]
    assert rate.kaldi_line() == "%MER 18.18 [ 2 / 11, 0 ins, 1 del, 1 sub ]"
    parts = rate.groups(languages)
    assert list(parts) == ["be", "th", "zh-CN"]
    assert parts["be"].kaldi_line() == "%WER 50.00 [ 1 / 2, 0 ins, 0 del, 1 sub ]"
    assert parts["zh-CN"].kaldi_line() == "%CER 33.33 [ 1 / 3, 0 ins, 1 del, 0 sub ]"
    mixed = score({"u": "我用 iPhone"}, {"u": "我 用 ipod"}, unit="mixed")
    assert mixed.kaldi_line() == "%MER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]"
    with pytest.raises(EvalError, match=r"unit 'auto' needs the language .* 1 have none \('z'\)"):
        score(refs, hyps, unit="auto", languages={"b": "be", "t": "th"})


def test_every_language_of_the_table_has_a_name():
    assert all(code.islower() and name[0].isupper() for code, name in CHARACTER_LANGUAGES.items())
