"""Whisper search: greedy, beam and sampling, with the fallback of Whisper's authors.

transformers' ``generate`` is not used: its fallback and its long form shrink and reorder rows out
of reach of the routes, finished rows keep costing, and streaming policies need single steps. Tests
hold both searches equal to it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.backbones.whisper import POSITION_SECONDS
from speechadapt.decoding.loops import argmax, beam_search, one_by_one, sampler
from speechadapt.decoding.options import DecodeOptions, language_code
from speechadapt.decoding.state import DecoderState
from speechadapt.decoding.timestamps import Word, align_words
from speechadapt.decoding.tokens import (
    NextTokenRules,
    Segment,
    SpecialTokens,
    decode_text,
    split_segments,
)
from speechadapt.model import SpeechModel
from speechadapt.route import Route

__all__ = ["DecodeOptions", "Hypothesis", "decode", "detect_languages", "token_budget"]

# The fastest speakers say some 8 syllables or 10 characters of a syllabary a second, and Whisper's
# byte pairs spend up to 3 tokens on a character of a script they hardly saw. More than that is the
# decoder repeating itself; stopping it there saves most of a runaway's time.
TOKENS_PER_SECOND = 30
SPARE_TOKENS = 16


@dataclass(frozen=True)
class Hypothesis:
    """What the search found for one utterance.

    Attributes:
        text: Stripped text; empty for silence.
        tokens: Ids after the prompt, without ``<|endoftext|>``.
        language: Given or detected code; None for English-only models.
        language_probability: Of the detected language; None when it was given.
        avg_logprob: Log-probability a token, the end included.
        no_speech_prob: Probability of ``<|nospeech|>`` at the first step.
        compression_ratio: UTF-8 bytes over zlib bytes; high when text repeats itself.
        temperature: At which it was found.
        segments: By Whisper's timestamps where asked for, else one for the whole utterance.
        words: By cross-attention, where asked for.
    """

    text: str
    tokens: tuple[int, ...]
    language: str | None
    language_probability: float | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()

    @classmethod
    def silence(cls, language: str | None = None) -> Hypothesis:
        """Of a recording in which nobody speaks."""
        return cls("", (), language, None, 0.0, 1.0, 0.0, 0.0)


def token_budget(seconds: float, positions: int, options: DecodeOptions) -> int:
    """Most tokens for an utterance: the option, or 30 a second plus 16, at most half the decoder.

    Args:
        seconds: Length of the utterance.
        positions: Positions of the decoder (448).
        options: Its ``max_tokens`` replaces the rule.
    """
    most = positions // 2  # as Whisper's authors: the other half is for the previous text
    if options.max_tokens is not None:
        return min(options.max_tokens, most)
    return min(most, math.ceil(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)


@torch.inference_mode()
def detect_languages(
    model: SpeechModel, encoded: Encoded, routes: Sequence[Route]
) -> list[tuple[str, float]]:
    """Most probable language of each utterance and its probability.

    Raises:
        ConfigError: The model knows English only.
    """
    special = SpecialTokens.of(model.backbone.generation)
    state = DecoderState(model, encoded, routes)
    start = encoded.lengths.new_full((len(routes), 1), special.start)
    return _languages(state.logits(start), special)


@torch.inference_mode()
def decode(
    model: SpeechModel,
    encoded: Encoded,
    routes: Sequence[Route],
    languages: Sequence[str | None],
    options: DecodeOptions,
    seconds: Sequence[float] | None = None,
) -> list[Hypothesis]:
    """Text of a batch; each utterance gets what it gets alone.

    Args:
        model: The frozen model and its adapters.
        encoded: Encoder output of the batch.
        routes: One for each utterance.
        languages: One code for each utterance; None = detect.
        options: Settings of the search; its ``language`` is not read here.
        seconds: Length of each utterance without trailing silence; None = all encoder positions.

    Raises:
        ConfigError: The model does not know a language or the task.
    """
    special = SpecialTokens.of(model.backbone.generation)
    for language in languages:
        special.check(language, options.task)
    if seconds is None:
        seconds = [POSITION_SECONDS * length for length in encoded.lengths.tolist()]
    found: dict[int, Hypothesis] = {}
    pending = list(range(len(routes)))
    for temperature in options.temperatures:
        if not pending:
            break
        attempt = _attempt(
            model,
            encoded.rows(torch.tensor(pending, device=encoded.lengths.device)),
            [routes[i] for i in pending],
            # A language detected by the first attempt stays: Whisper detects once.
            [found[i].language if i in found else languages[i] for i in pending],
            [seconds[i] for i in pending],
            replace(options, temperatures=(temperature,)),
        )
        for i, hypothesis in zip(pending, attempt, strict=True):
            detected = found[i].language_probability if i in found else None
            found[i] = replace(
                hypothesis, language_probability=detected or hypothesis.language_probability
            )
        pending = [i for i in pending if _needs_fallback(found[i], options)]
    results = [
        replace(found[i], text="", tokens=()) if _is_silence(found[i], options) else found[i]
        for i in range(len(routes))
    ]
    tokenizer = model.backbone.tokenizer
    results = [
        replace(result, segments=split_segments(tokenizer, result.tokens, special, length))
        for result, length in zip(results, seconds, strict=True)
    ]
    if options.word_timestamps:
        prompts = [special.prompt(result.language, options.task, False) for result in results]
        texts = [[t for t in result.tokens if t < special.end] for result in results]
        codes = [result.language for result in results]
        words = align_words(model, encoded, routes, prompts, texts, codes, seconds)
        results = [replace(r, words=w) for r, w in zip(results, words, strict=True)]
    return results


def _needs_fallback(hypothesis: Hypothesis, options: DecodeOptions) -> bool:
    if _is_silence(hypothesis, options):
        return False
    ratio, logprob = options.compression_ratio_threshold, options.logprob_threshold
    return (ratio is not None and hypothesis.compression_ratio > ratio) or (
        logprob is not None and hypothesis.avg_logprob < logprob
    )


def _is_silence(hypothesis: Hypothesis, options: DecodeOptions) -> bool:
    silence, logprob = options.no_speech_threshold, options.logprob_threshold
    return (
        silence is not None
        and hypothesis.no_speech_prob > silence
        and (logprob is None or hypothesis.avg_logprob < logprob)
    )


def _languages(logits: Tensor, special: SpecialTokens) -> list[tuple[str, float]]:
    if not special.languages:
        special.check("auto", "transcribe")
    codes = list(special.languages)
    ids = torch.tensor([special.languages[code] for code in codes], device=logits.device)
    best = logits[:, ids].double().softmax(dim=-1).max(dim=-1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(codes[index], probability) for index, probability in pairs]


def _attempt(
    model: SpeechModel,
    encoded: Encoded,
    routes: Sequence[Route],
    languages: Sequence[str | None],
    seconds: Sequence[float],
    options: DecodeOptions,
) -> list[Hypothesis]:
    """Search once, at the only temperature of ``options``."""
    backbone = model.backbone
    special = SpecialTokens.of(backbone.generation)
    state = DecoderState(model, encoded, routes)
    codes = [language_code(language) if language else None for language in languages]
    probabilities: list[float | None] = [None] * len(routes)
    device = encoded.lengths.device
    if special.languages and None in codes:
        at_start = state.logits(torch.full((len(routes), 1), special.start, device=device))
        for i, (code, probability) in enumerate(_languages(at_start, special)):
            if codes[i] is None:
                codes[i], probabilities[i] = code, probability
        prompts = [special.prompt(code, options.task, options.timestamps)[1:] for code in codes]
        last = at_start
        if prompts[0]:
            last = state.logits(torch.tensor(prompts, device=device))
    else:
        prompts = [special.prompt(code, options.task, options.timestamps) for code in codes]
        states = state.feed(torch.tensor(prompts, device=device))
        at_start, last = backbone.logits(states[:, 0]), backbone.logits(states[:, -1])
    no_speech = at_start.double().softmax(dim=-1)[:, special.no_speech].tolist()

    rules = NextTokenRules(backbone.generation, options)
    positions = backbone.model.config.max_target_positions
    budgets = [token_budget(length, positions, options) for length in seconds]
    (temperature,) = options.temperatures
    if temperature > 0:
        pick = sampler(temperature, options.seed, max(budgets))
        found = one_by_one(state, last, rules, special.end, budgets, pick)
    elif options.beam_size == 1:
        found = one_by_one(state, last, rules, special.end, budgets, argmax)
    else:
        found = beam_search(state, last, rules, special.end, budgets, options.beam_size)

    hypotheses = []
    for i, (tokens, logprob) in enumerate(found):
        text = decode_text(backbone.tokenizer, tokens, special)
        hypotheses.append(
            Hypothesis(
                text=text,
                tokens=tuple(tokens),
                language=codes[i],
                language_probability=probabilities[i],
                avg_logprob=logprob / (len(tokens) + 1),
                no_speech_prob=no_speech[i],
                compression_ratio=compression_ratio(text),
                temperature=temperature,
            )
        )
    return hypotheses


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes after zlib; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
