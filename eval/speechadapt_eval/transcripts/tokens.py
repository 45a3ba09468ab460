"""Token units: what an error rate counts.

``word``: what white space separates. ``char``: code points; a space between words counts, as in
jiwer and most published figures, but not a space next to a letter of a script that has none
between words: such spaces are layout, and systems set them as they like. ``mixed``: each character
of such a script is a token, and so is each other word (the mixed error rate of code-switched
speech). ``auto``: the unit of each utterance's language, see ``unit_of``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Languages written without spaces between words: characters are counted, as in the evaluation of
# Whisper (Radford et al. 2022, which leaves Khmer out). Korean has spaces: words.
CHARACTER_LANGUAGES = {
    "zh": "Chinese", "zho": "Chinese", "cmn": "Mandarin", "yue": "Cantonese", "wuu": "Wu",
    "nan": "Min Nan", "hak": "Hakka", "gan": "Gan", "hsn": "Xiang", "lzh": "Literary Chinese",
    "ja": "Japanese", "jpn": "Japanese", "th": "Thai", "tha": "Thai", "lo": "Lao", "lao": "Lao",
    "my": "Burmese", "mya": "Burmese", "km": "Khmer", "khm": "Khmer",
}  # fmt: skip

# Letters and marks of Han, Kana, Bopomofo, Thai, Lao, Burmese and Khmer.
_SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u302f\u3031-\u3035\u3038-\u303c\u3041-\u30fa\u30fc-\u312f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
    "\u0e01-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff"
)
_LAYOUT = re.compile(rf"(?<=[{_SPACELESS}])\s+|\s+(?=[{_SPACELESS}])")
_MIXED = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")


def characters(text: str) -> list[str]:
    """Code points, without spaces at the ends and beside letters of scripts without spaces."""
    return list(_LAYOUT.sub("", text.strip()))


UNITS: dict[str, Callable[[str], list[str]]] = {
    "word": str.split,
    "char": characters,
    "mixed": _MIXED.findall,
}


def unit_of(language: str) -> str:
    """``char`` for a language of ``CHARACTER_LANGUAGES``, else ``word``.

    Args:
        language: A code, alone or with script and region: ``zh``, ``zh-TW``, ``cmn_hans_cn``.
    """
    return "char" if primary(language) in CHARACTER_LANGUAGES else "word"


def primary(language: str) -> str:
    """The language of a tag: ``pt`` of ``pt-BR``."""
    return re.split("[-_]", language, maxsplit=1)[0].lower()
