"""Transcripts aligned with their references: errors shown by mark and by colour.

The marks survive print and colour blindness. What is shown is bounded, whatever the texts are:
long stretches without an error are folded, and what exceeds the room is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from speechadapt_eval.transcripts.wer import ErrorRate, Op, Utterance

LEGEND = (
    '<p class="note">Marks: <span class="sub"><ins>heard</ins><del>spoken</del></span> another '
    'word than spoken; <del class="gone">missing</del> a word left out; '
    '<ins class="more">extra</ins> a word that nobody spoke.</p>'
)
_MARKED = {
    "equal": "{hyp}",
    "substitute": '<span class="sub"><ins>{hyp}</ins><del>{ref}</del></span>',
    "delete": '<del class="gone">{ref}</del>',
    "insert": '<ins class="more">{hyp}</ins>',
}
_MOST_TOKENS = 300  # of one text: as many as a screen holds
_MOST_LETTERS = 80  # of one token
_AROUND = 20  # right tokens kept on each side of an error where a text is long


def article(
    utterance: Utterance,
    heard: Mapping[str, ErrorRate],
    utterances: Sequence[Utterance],
    *,
    heading: str,
    language: str = "",
    player: str = "",
) -> str:
    """One utterance: what was spoken, and what each system heard, side by side where there is room.

    Args:
        utterance: For its reference.
        heard: System to the scoring it belongs to.
        utterances: The same utterance of each system, in that order.
        heading: Plain text, e.g. the id.
        language: BCP 47 tag of the texts.
        player: HTML of an audio player.
    """
    lang = f' lang="{escape(language)}"' if language else ""
    char = any(scored.unit == "char" for scored in utterances)
    joint = "" if char else " "
    spoken = _plain(utterance.ref, joint) or '<span class="empty">nothing spoken</span>'
    cells = []
    for (name, rate), scored in zip(heard.items(), utterances, strict=True):
        text = marked(rate.alignment(scored), joint)
        cells.append(
            f"<div><dt>{escape(clip(name))} "
            f'<span class="rate">{scored.errors} / {scored.n_ref} wrong</span></dt>'
            f'<dd dir="auto"{lang}>{text}</dd></div>'
        )
    return (
        f'<article class="utt"><div class="head"><h3>{escape(clip(heading, 200))}</h3>{player}'
        '</div><dl><div class="whole"><dt>reference</dt>'
        f'<dd dir="auto"{lang}>{spoken}</dd></div>{"".join(cells)}</dl></article>'
    )


def marked(ops: Sequence[Op], joint: str) -> str:
    """A hypothesis with its errors marked, as HTML.

    Args:
        ops: Its alignment.
        joint: What stands between tokens: a space, or nothing between characters.
    """
    if not ops:
        return '<span class="empty">nothing heard</span>'
    parts = []
    for op in _folded(ops):
        if isinstance(op, str):
            parts.append(_fold(op))
        else:
            ref, hyp = escape(clip(op.ref)), escape(clip(op.hyp))
            parts.append(_MARKED[op.kind].format(ref=ref, hyp=hyp))
    if not any(op.hyp for op in ops):
        parts.append('<span class="empty">nothing heard</span>')
        return " ".join(parts)
    return joint.join(parts)


def clip(text: str, most: int = _MOST_LETTERS) -> str:
    """A text of at most that many letters; an ellipsis stands for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(text: str, joint: str) -> str:
    """A reference, escaped and bounded."""
    tokens = text.split() if joint else list(text)
    shown = joint.join(escape(clip(token)) for token in tokens[:_MOST_TOKENS])
    rest = len(tokens) - _MOST_TOKENS
    return shown + (" " + _fold(f"… {rest:,} more") if rest > 0 else "")


def _folded(ops: Sequence[Op]) -> list[Op | str]:
    """Operations, and remarks in place of those that there is no room for."""
    if len(ops) <= _MOST_TOKENS:
        return list(ops)
    near = [False] * len(ops)
    for i, op in enumerate(ops):
        if op.kind != "equal":
            near[max(0, i - _AROUND) : i + _AROUND + 1] = [True] * len(
                near[max(0, i - _AROUND) : i + _AROUND + 1]
            )
    result: list[Op | str] = []
    right = shown = 0
    for i, op in enumerate(ops):
        if not near[i]:
            right += 1
            continue
        if right:
            result.append(f"… {right:,} right …")
            right = 0
        if shown == _MOST_TOKENS:
            wrong = sum(op.kind != "equal" for op in ops[i:])
            return [*result, f"… {len(ops) - i:,} more, {wrong:,} of them wrong"]
        result.append(op)
        shown += 1
    return [*result, f"… {right:,} right"] if right else result


def _fold(remark: str) -> str:
    return f'<span class="fold">{escape(remark)}</span>'
