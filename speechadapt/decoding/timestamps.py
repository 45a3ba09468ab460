"""Word times from the decoder's cross-attention.

As Whisper's authors do it: the weights of the alignment heads, normalised over the tokens, smoothed
over time and averaged, give a cost matrix of tokens against encoder positions; dynamic time warping
finds the monotonic path; a word starts where the path enters it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechadapt.backbones.base import Encoded
from speechadapt.backbones.whisper import POSITION_SECONDS, WhisperBackbone
from speechadapt.call import running
from speechadapt.decoding.tokens import WITHOUT_SPACES
from speechadapt.model import SpeechModel
from speechadapt.route import Route

_MEDIAN_WIDTH = 7  # encoder positions
_SLOW_WORD, _SLOW_CHARACTER = 0.6, 0.1  # seconds: the slowest a word is spoken
_OPENING = "\"'“¿([{-"
_INSIDE = "'’-"  # these do not end a word: сям'я, don't, па-беларуску
_CLOSING = "\"'.。,，!！?？:：”)]}、"

_watched: ContextVar[dict[str, Tensor] | None] = ContextVar("speechadapt_watched", default=None)


@dataclass(frozen=True)
class Word:
    """A word and when it was said.

    Attributes:
        start: Seconds from the beginning of the audio.
        end: Seconds.
        text: With the space before it, if any: joining all words gives the text.
    """

    start: float
    end: float
    text: str


def align_words(
    model: SpeechModel,
    encoded: Encoded,
    routes: Sequence[Route],
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    languages: Sequence[str | None],
    seconds: Sequence[float],
) -> list[tuple[Word, ...]]:
    """Times of the words of each utterance.

    Args:
        model: The frozen model and its adapters.
        encoded: Encoder output of the batch.
        routes: One for each utterance.
        prompts: Decoder input before the text, up to and with ``<|notimestamps|>``; equally long.
        tokens: Text tokens without special ones, for each utterance.
        languages: Decides whether words are told apart by spaces.
        seconds: Length of each utterance; nothing is aligned with the silence behind it.
    """
    spoken = [i for i, ids in enumerate(tokens) if ids]
    words: list[tuple[Word, ...]] = [()] * len(tokens)
    if not spoken:
        return words
    backbone = model.backbone
    end = backbone.tokenizer.eos_token_id
    rows = [[*prompts[i], *tokens[i], end] for i in spoken]
    longest = max(map(len, rows))
    batch = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    some = encoded.rows(torch.tensor(spoken, device=encoded.lengths.device))
    call_routes = [routes[i] for i in spoken]
    with torch.inference_mode(), running(model.call(call_routes, some)):
        scores = _attention_scores(backbone, batch.to(some.states.device), some)
    for row, i in enumerate(spoken):
        available = int(some.lengths[row])
        positions = max(1, min(available, math.ceil(seconds[i] / POSITION_SECONDS)))
        weights = scores[row, :, : len(rows[row]), :positions].softmax(dim=-1)
        cost = -_smoothed(weights)[len(prompts[i]) - 1 : -1]
        starts = _token_starts(cost.double().cpu().numpy())
        pieces = split_words(backbone.tokenizer, tokens[i], languages[i])
        words[i] = _timed_words(pieces, starts, min(seconds[i], positions * POSITION_SECONDS))
    return words


def _attention_scores(backbone: WhisperBackbone, tokens: Tensor, encoded: Encoded) -> Tensor:
    """Cross-attention scores before the softmax, ``[batch, heads, tokens, positions]``.

    Fast attention returns no weights, so queries and keys are taken where they are made, adapters
    included, and multiplied for the alignment heads only.
    """
    heads = alignment_heads(backbone)
    attentions = {layer: backbone.model.model.decoder.layers[layer].encoder_attn for layer in heads}
    with _watching(attentions) as seen:
        backbone.decoder_states(tokens, encoded)
    scores = []
    for layer, wanted in heads.items():
        attention: Any = attentions[layer]
        query, key = (
            seen[f"{layer}.{side}"].unflatten(-1, (attention.num_heads, -1))[:, :, wanted]
            for side in ("q_proj", "k_proj")
        )
        scores.append(torch.einsum("bthd,bphd->bhtp", query * attention.scaling, key))
        # Half precision is too coarse for the normalisation that follows.
        scores[-1] = scores[-1].to(torch.promote_types(scores[-1].dtype, torch.float32))
    return torch.cat(scores, dim=1)


def alignment_heads(backbone: WhisperBackbone) -> dict[int, list[int]]:
    """Heads that follow the audio, by decoder layer.

    The checkpoint's own list; where it has none, every head of the upper half of the layers.
    """
    listed = getattr(backbone.generation, "alignment_heads", None)
    if not listed:
        config = backbone.model.config
        layers = range(config.decoder_layers // 2, config.decoder_layers)
        return {layer: list(range(config.decoder_attention_heads)) for layer in layers}
    heads: dict[int, list[int]] = {}
    for layer, head in listed:
        heads.setdefault(layer, []).append(head)
    return heads


@contextmanager
def _watching(attentions: dict[int, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect what ``q_proj`` and ``k_proj`` give in this thread; other threads see nothing."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for layer, attention in attentions.items():
        for side in ("q_proj", "k_proj"):
            hook = _recorder(f"{layer}.{side}", seen)
            hooks.append(attention.get_submodule(side).register_forward_hook(hook))
    token = _watched.set(seen)
    try:
        yield seen
    finally:
        _watched.reset(token)
        for handle in hooks:
            handle.remove()


def _recorder(name: str, mine: dict[str, Tensor]) -> Any:
    def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if _watched.get() is mine:
            mine[name] = output

    return record


def _smoothed(weights: Tensor) -> Tensor:
    """``[heads, tokens, positions]`` to ``[tokens, positions]``."""
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, correction=0)
    weights = (weights - mean) / std.clamp(min=torch.finfo(weights.dtype).tiny)
    side = _MEDIAN_WIDTH // 2
    if weights.shape[-1] > side:  # mirroring needs more positions than it adds
        padded = nn.functional.pad(weights, (side, side), mode="reflect")
        weights = padded.unfold(-1, _MEDIAN_WIDTH, 1).median(dim=-1).values
    return weights.mean(dim=0)


def _token_starts(cost: np.ndarray) -> np.ndarray:
    """Seconds at which the cheapest path enters each token of ``cost`` ``[tokens, positions]``."""
    path_tokens, path_positions = warp(cost)
    enters = np.flatnonzero(np.diff(path_tokens, prepend=-1))
    return path_positions[enters] * POSITION_SECONDS


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic time warping: the cheapest monotonic path through a matrix, corner to corner.

    Args:
        cost: ``[rows, columns]``.

    Returns:
        Row and column of each point of the path.
    """
    rows, columns = cost.shape
    # Skewed, so that an anti-diagonal is a row: its cells depend on the two before it only, and
    # numpy computes it at once.
    total = np.full((rows + columns - 1, rows), np.inf)
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        best = np.full(len(i), np.inf)
        if diagonal:
            best = np.minimum(total[diagonal - 1, i], _shifted(total[diagonal - 1], i))
        if diagonal > 1:
            best = np.minimum(best, _shifted(total[diagonal - 2], i))
        if diagonal == 0:
            best[:] = 0.0
        total[diagonal, i] = best + cost[i, diagonal - i]
    i, j = rows - 1, columns - 1
    path = [(i, j)]
    while i or j:
        # In this order a tie goes straight, then to the previous row.
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min(
            (step for step in steps if min(step) >= 0), key=lambda at: total[at[0] + at[1], at[0]]
        )
        path.append((i, j))
    points = np.array(path[::-1])
    return points[:, 0], points[:, 1]


def _shifted(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``values`` at ``index - 1``, infinite before the first."""
    return np.where(index > 0, values[index - 1], np.inf)


def split_words(
    tokenizer: Any, tokens: Sequence[int], language: str | None
) -> list[tuple[str, int]]:
    """Group tokens into words.

    Args:
        tokenizer: Decodes byte-pair tokens; a character may need several.
        tokens: Text tokens.
        language: Code; where words are not set apart by spaces each character is one.

    Returns:
        Text of each word and how many tokens it has; a mark of punctuation is a word here.
    """
    pieces: list[tuple[str, int]] = []
    pending: list[int] = []
    for position, token in enumerate(tokens):
        pending.append(token)
        text = tokenizer.decode(pending)
        if "\ufffd" not in text or position == len(tokens) - 1:
            pieces.append((text, len(pending)))
            pending = []
    if language in WITHOUT_SPACES:
        return pieces
    words: list[tuple[str, int]] = []
    for text, count in pieces:
        mark = text.strip() in _OPENING + _CLOSING
        if not words or text.startswith(" ") or mark:
            words.append((text, count))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + count)
    return words


def _timed_words(
    pieces: Sequence[tuple[str, int]], starts: np.ndarray, limit: float
) -> tuple[Word, ...]:
    """Words with their times; punctuation joins its word without lengthening it."""
    timed: list[Word] = []
    first = 0
    for text, count in pieces:
        begin = float(starts[first])
        end = float(starts[first + count])  # after the last word the end token starts
        # The path stays in a word through the pause behind it; nobody stretches a word that far.
        slowest = _SLOW_WORD + _SLOW_CHARACTER * len(text.strip())
        timed.append(Word(round(begin, 2), round(min(end, limit, begin + slowest), 2), text))
        first += count
    return tuple(_with_punctuation(timed))


def _with_punctuation(words: Sequence[Word]) -> list[Word]:
    merged: list[Word] = []
    opening = ""
    for word in words:
        mark = word.text.strip()
        if len(mark) == 1 and mark in _OPENING and word.text.startswith(" "):
            opening += word.text
        elif merged and not opening and mark and all(c in _CLOSING for c in mark):
            last = merged[-1]
            merged[-1] = Word(last.start, last.end, last.text + word.text)
        elif merged and not opening and word.text.startswith(tuple(_INSIDE)):
            merged[-1] = Word(merged[-1].start, word.end, merged[-1].text + word.text)
        else:
            merged.append(Word(word.start, word.end, opening + word.text))
            opening = ""
    if opening and merged:
        merged[-1] = Word(merged[-1].start, merged[-1].end, merged[-1].text + opening)
    return merged
