"""Normalisers keep what is spoken and forgive how it is written, in every script."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechadapt_eval import EvalError, normalizer, score
from speechadapt_eval.transcripts import normalize as module

unicode_words = normalizer("unicode")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Добры дзень! Як — справы?", "добры дзень як справы"),
        ("L’été, l'hiver, lʼautre", "l'été l'hiver l'autre"),
        ("м’яч М'ЯЧ", "м'яч м'яч"),
        ("'quoted' rock 'n' roll, dogs'", "quoted rock n roll dogs"),
        ("''double''quotes", "double quotes"),
        ("col·lecció · COL·LECCIÓ a·b", "col·lecció col·lecció a b"),
        ("inte\u0140ligent", "intel·ligent"),
        ("ΟΔΟΣ οδός", "οδοσ οδόσ"),
        ("मैं हिन्दी में", "मैं हिन्दी में"),
        ("สวัสดีครับ", unicodedata.normalize("NFC", "สวัสดีครับ")),
        ("مُدَرِّس؟", unicodedata.normalize("NFC", "مُدَرِّس")),
        ("שָׁלוֹם", unicodedata.normalize("NFC", "שָׁלוֹם")),
        ("Ｆｕｌｌ　width…", "full width"),
        ("Straße STRASSE", "strasse strasse"),
        ("e\u0301te\u0301 été", "été été"),
        ("soft\u00adhyphen\u200b \ufeffmark", "softhyphen mark"),
        ("❤️ 1️⃣ +5 %", "1 5"),
        ("a\u00a0b\u2028c\td", "a b c d"),
        ("´acute´ l´été", "acute l'été"),
        ("!? … —", ""),
        ("", ""),
    ],
)
def test_unicode(written, words):
    assert unicode_words(written) == words


def test_none_changes_nothing():
    assert normalizer("none")("  A, b!\n") == "  A, b!\n"


def test_unknown_name_lists_the_known():
    with pytest.raises(
        EvalError, match="unknown normaliser 'whisper': choose one of unicode, none"
    ):
        normalizer("whisper")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_twice_is_once_and_only_words_remain(text):
    once = unicode_words(text)
    assert unicode_words(once) == once
    assert once == " ".join(once.split())
    for character in once:
        category = unicodedata.category(character)
        assert category[0] in "LN" or category in ("Mn", "Mc") or character in "'· "


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_encoding_of_letters_does_not_matter(text):
    composed = unicode_words(unicodedata.normalize("NFC", text))
    assert composed == unicode_words(unicodedata.normalize("NFD", text))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_words_alone_are_as_in_their_text(text):
    assert unicode_words(text) == module._words(text)
    assert unicode_words(f"{'x' * 70} {text}") == f"{'x' * 70} {module._words(text)}".rstrip()


@pytest.mark.parametrize("language", ["tr", "az-Latn", "TUR"])
def test_turkish_letters(language):
    turkish = normalizer("unicode", language)
    assert turkish("IŞIK İstanbul, I\u0307zmir ışık") == "ışık istanbul izmir ışık"
    assert normalizer("unicode", "en") is unicode_words
    refs, hyps = {"u": "ışık iyi"}, {"u": "IŞIK İYİ"}
    assert score(refs, hyps, languages={"u": language}).errors == 0
    assert score(refs, hyps).errors == 2


# What whisper-normalizer does to texts: the point of not having it as the default.
@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        ("whisper-basic", "Mr. Brown's [noise] (uh) colour", "mr brown s colour"),
        ("whisper-basic", "मैं हिन्दी में", "म ह न द म"),
        ("whisper-basic", "м'яч", "м яч"),
        ("whisper-english", "Mr. Brown's colour is twenty-five", "mister brown is color is 25"),
        ("whisper-english", "10 o'clock", "100 clock"),
        ("whisper-english", "", ""),
    ],
)
def test_whisper(name, written, words):
    pytest.importorskip("whisper_normalizer")
    assert normalizer(name)(written) == words


def test_whisper_failing_on_a_number_is_named():
    pytest.importorskip("whisper_normalizer")
    with pytest.raises(EvalError, match="'u7': normaliser 'whisper-english' fails"):
        score({"u7": "9" * 5000}, {"u7": "a"}, normalize="whisper-english")


def test_whisper_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(EvalError, match="pip install whisper-normalizer"):
        normalizer("whisper-english", "a language not asked for before")
