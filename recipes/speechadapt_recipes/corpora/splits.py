"""Train, dev and test splits of a parallel corpus, without leaks.

The same picture is described in every language, and different pictures may share a description.
Items that share a normalised text in any language are therefore tied together, and every group goes
to one split as a whole, the same one for all languages. Which one is decided by a hash of the
group's first item, so dropping unusable clips moves nothing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping

SPLITS = ("train", "dev", "test")
TEST_SHARE = 0.14
DEV_SHARE = 0.06
LARGEST_HELD_OUT = 8  # a group of more items would make a held-out set of near copies: it trains


def normalised(text: str) -> str:
    """Letters, marks and digits of ``text`` without case; what counts as the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return " ".join("".join(kept).split())


def assign_splits(texts: Mapping[str, Iterable[tuple[str, str]]]) -> dict[str, str]:
    """Give every item of a parallel corpus its split.

    Args:
        texts: For each item (a picture, a prompt) its texts as ``(language, text)``.

    Returns:
        ``train``, ``dev`` or ``test`` for each item.
    """
    parent = {item: item for item in texts}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[tuple[str, str], str] = {}
    for item in sorted(texts):
        for language, text in texts[item]:
            key = (language, normalised(text))
            if not key[1]:
                continue
            # The smaller name becomes the root: the group's name does not depend on the order.
            one, other = sorted((root(item), root(first.setdefault(key, item))))
            parent[other] = one
    groups: dict[str, list[str]] = {}
    for item in parent:
        groups.setdefault(root(item), []).append(item)
    return {
        item: _split_of(name, len(members)) for name, members in groups.items() for item in members
    }


def _split_of(group: str, size: int) -> str:
    if size > LARGEST_HELD_OUT:
        return "train"
    draw = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    if draw < TEST_SHARE:
        return "test"
    return "dev" if draw < TEST_SHARE + DEV_SHARE else "train"
