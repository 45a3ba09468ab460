"""Text normalisers: what counts as the same word.

The default ``unicode`` serves every script alike. It forgives case, punctuation and the many ways
to encode one letter; it keeps combining marks, because in Devanagari, Thai or vocalised Arabic
they are letters in all but name, and a normaliser that drops them scores other words than spoken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from speechadapt_eval.errors import choose

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
    Texts are not language-aware: numbers stay as written, and Turkish ``I`` folds to ``i``.
    """
    text = unicodedata.normalize("NFD", text).translate(_UNSEEN)
    text = _fold(text).translate(_CHARACTERS)
    text = unicodedata.normalize("NFC", _LONE_DOT.sub(" ", text).replace("''", " "))
    return " ".join(word for word in map(_trim, text.split()) if word)


def unchanged(text: str) -> str:
    """Leave the text as it is: case, punctuation and encoding all count."""
    return text


NORMALIZERS: dict[str, Normalizer] = {"unicode": unicode_words, "none": unchanged}


def normalizer(name: str = "unicode") -> Normalizer:
    """Return the normaliser of that name.

    Raises:
        EvalError: Unknown name; the message lists the known ones.
    """
    choose("normaliser", name, NORMALIZERS)
    return NORMALIZERS[name]
