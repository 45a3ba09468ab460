"""Text normalisers: what counts as the same word.

The default ``unicode`` serves every script alike. It forgives case, punctuation and the many ways
to encode one letter; it keeps combining marks, because in Devanagari, Thai or vocalised Arabic
they are letters in all but name, and a normaliser that drops them scores other words than spoken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module

from speechadapt_eval.errors import EvalError, choose
from speechadapt_eval.transcripts.tokens import primary

Normalizer = Callable[[str], str]

# Typographic, modifier, fullwidth, Armenian and Greek forms, prime, and the two accents that
# keyboards offer instead. Mapped before NFKC, which would turn some into a space and an accent.
_APOSTROPHES = "'’‘‛ʼʻ＇´`′՚\ua78c\u1fbd\u1fbf"
# Marks by category, but they only pick a glyph or hold letters apart.
_INVISIBLE = {0x034F, 0x180B, 0x180C, 0x180D, 0x180F, *range(0xFE00, 0xFE10)}
_INVISIBLE |= set(range(0xE0100, 0xE01F0))


class _Characters(dict[int, int | str | None]):
    """What becomes of each character, filled as characters are met (for ``str.translate``)."""

    def __missing__(self, code: int) -> int | str | None:
        self[code] = value = self._fate(code)
        return value

    @staticmethod
    def _fate(code: int) -> int | str | None:
        character, category = chr(code), unicodedata.category(chr(code))
        if character in _APOSTROPHES:
            return "'"
        if code in _INVISIBLE or category == "Cf":  # joiners, soft hyphens, direction signs
            return None
        if category[0] in "LN" or category in ("Mn", "Mc") or character == "·":
            return code
        return " "


class _Unseen(_Characters):
    """The part of it that must come before NFKC."""

    @staticmethod
    def _fate(code: int) -> int | str | None:
        value = _Characters._fate(code)
        return value if value in ("'", None) else code


_UNSEEN, _CHARACTERS = _Unseen(), _Characters()
_LONE_DOT = re.compile(r"(?<!l)·|·(?!l)")


def _fold(text: str) -> str:
    """NFKC and case folding; folding can undo the composition, hence twice."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _trim(word: str) -> str:
    """Cut quotation marks off a word, and marks that have lost the letter they sat on."""
    start = 0
    while start < len(word) and (word[start] == "'" or unicodedata.category(word[start])[0] == "M"):
        start += 1
    return word[start:].rstrip("'")


def unicode_words(text: str) -> str:
    """Fold compatibility forms and case; leave letters, numbers, marks and single spaces.

    An apostrophe stays where it is inside a word (``l’été`` becomes ``l'été``), so does Catalan's
    ``l·l``. Invisible format characters vanish; all other punctuation and symbols end a word.
    Numbers stay as written. ``I`` folds to ``i``; ``turkish_words`` knows better.
    """
    # No step looks beyond white space, so words are folded one by one and remembered.
    return " ".join(filter(None, map(_word, text.split())))


def turkish_words(text: str) -> str:
    """As ``unicode_words``, with the two letters i of Turkish and Azerbaijani: I is ı, İ is i."""
    text = unicodedata.normalize("NFC", text)
    return unicode_words(text.replace("I", "ı").replace("İ", "i"))


def unchanged(text: str) -> str:
    """Leave the text as it is: case, punctuation and encoding all count."""
    return text


def _word(text: str) -> str:
    return _remembered(text) if len(text) <= _LONG else _words(text)


def _words(text: str) -> str:
    text = unicodedata.normalize("NFD", text).translate(_UNSEEN)
    text = _fold(text).translate(_CHARACTERS)
    text = unicodedata.normalize("NFC", _LONE_DOT.sub(" ", text).replace("''", " "))
    return " ".join(word for word in map(_trim, text.split()) if word)


_LONG = 64  # code points: longer ones hardly occur twice
_remembered = lru_cache(maxsize=1 << 17)(_words)


def _whisper(module: str, kind: str) -> Normalizer:
    """One of Whisper's normalisers, from the package ``whisper-normalizer``."""
    try:
        package = import_module(f"whisper_normalizer.{module}")
    except ImportError as error:
        raise EvalError(
            f"normaliser 'whisper-{module}' needs a package that cannot be imported ({error}): "
            "pip install whisper-normalizer"
        ) from error
    normalise = getattr(package, kind)()
    return lambda text: " ".join(normalise(text).split())


# Each makes the normaliser of its name.
NORMALIZERS: dict[str, Callable[[], Normalizer]] = {
    "unicode": lambda: unicode_words,
    "none": lambda: unchanged,
    "whisper-basic": lambda: _whisper("basic", "BasicTextNormalizer"),
    "whisper-english": lambda: _whisper("english", "EnglishTextNormalizer"),
}
_TURKISH = ("tr", "tur", "az", "aze", "azj", "azb")


@cache
def normalizer(name: str = "unicode", language: str | None = None) -> Normalizer:
    """Return the normaliser of that name.

    Args:
        name: ``unicode``, ``none``, ``whisper-basic`` or ``whisper-english``.
        language: Code of the texts' language; ``unicode`` folds Turkish and Azerbaijani letters
            by their own rule. The others know no language.

    Raises:
        EvalError: Unknown name, with the known ones; or the package it needs is not there.
    """
    choose("normaliser", name, NORMALIZERS)
    if name == "unicode" and language and primary(language) in _TURKISH:
        return turkish_words
    return NORMALIZERS[name]()
