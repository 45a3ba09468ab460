"""CTC to text: the most probable token at each position, repeats and blanks left out."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.decoding.options import DecodeOptions
from speechadapt.decoding.search import Hypothesis
from speechadapt.decoding.timestamps import Word
from speechadapt.decoding.tokens import Segment
from speechadapt.errors import ConfigError
from speechadapt.heads.ctc import CtcConfig, CtcHead
from speechadapt.heads.head import unlike
from speechadapt.model import SpeechModel
from speechadapt.route import Route


@torch.inference_mode()
def decode_ctc(
    model: SpeechModel,
    encoded: Encoded,
    routes: Sequence[Route],
    languages: Sequence[str | None],
    options: DecodeOptions,
    seconds: Sequence[float] | None = None,
) -> list[Hypothesis]:
    """Text of a batch, greedily; words come with their times.

    Args:
        model: The frozen model and its adapters.
        encoded: Encoder output of the batch.
        routes: One for each utterance.
        languages: What is known of each; it changes nothing but the answer's ``language``.
        options: ``beam_size`` and ``task`` must be left as they are.
        seconds: Length of each utterance without trailing silence; None = all positions.

    Raises:
        ConfigError: A route without a CTC head, or an option that CTC does not have.
    """
    if options.beam_size != 1 or options.task != "transcribe":
        raise ConfigError("a CTC head decodes greedily and translates nothing; leave beam and task")
    hypotheses = []
    for row, route in enumerate(routes):
        head = model.head(route)
        if not isinstance(head, CtcHead):
            raise unlike(CtcHead.kind, head, "transcribing")
        mine = encoded.rows(torch.tensor([row], device=encoded.lengths.device))
        log_probs = head.log_probs(mine)[0]
        length = len(log_probs)
        span = length * model.backbone.position_seconds if seconds is None else seconds[row]
        hypotheses.append(
            _best_path(
                log_probs, head.config, model.backbone.position_seconds, span, languages[row]
            )
        )
    return hypotheses


def _best_path(
    log_probs: Tensor, vocabulary: CtcConfig, step: float, seconds: float, language: str | None
) -> Hypothesis:
    best = log_probs.max(-1)
    path: list[int] = best.indices.tolist()
    tokens: list[int] = []
    words: list[Word] = []
    letters, began, ended = "", 0.0, 0.0
    position = 0
    for token, run in itertools.groupby(path):
        start, position = position, position + len(list(run))
        if token == vocabulary.blank:
            continue
        tokens.append(token)
        text = vocabulary.tokens[token]
        if text.startswith(vocabulary.delimiter):
            _finish_word(words, letters, began, ended)
            letters, text = "", text.removeprefix(vocabulary.delimiter)
        if text and text not in vocabulary.silent:
            began = began if letters else start * step
            ended = min(position * step, seconds)
            letters += text
    _finish_word(words, letters, began, ended)
    text = "".join(word.text for word in words)
    raw = text.encode()
    return Hypothesis(
        text=text,
        tokens=tuple(tokens),
        language=language,
        language_probability=None,
        avg_logprob=float(best.values.mean()) if path else 0.0,
        no_speech_prob=0.0,
        compression_ratio=len(raw) / len(zlib.compress(raw)) if raw else 0.0,
        temperature=0.0,
        segments=(Segment(words[0].start, words[-1].end, text),) if words else (),
        words=tuple(words),
    )


def _finish_word(words: list[Word], letters: str, start: float, end: float) -> None:
    if letters:
        words.append(Word(start, max(start, end), f" {letters}" if words else letters))
