"""Whisper's special tokens, and which tokens may come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, WhisperTimeStampLogitsProcessor

from speechadapt.decoding.options import DecodeOptions, language_code
from speechadapt.errors import ConfigError

TIMESTAMP_SECONDS = 0.02  # one step of the timestamp tokens
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # between their words
_LATEST_START = 50  # the first timestamp is at most 1 s, as in the authors' decoder


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that steer the decoder.

    Attributes:
        start: ``<|startoftranscript|>``.
        end: ``<|endoftext|>``; all ids from here on are special.
        no_timestamps: ``<|notimestamps|>``.
        languages: Code (``be``) to id; empty for English-only models.
        tasks: ``transcribe`` and ``translate`` to id; empty for English-only models.
    """

    start: int
    end: int
    no_timestamps: int
    languages: dict[str, int]
    tasks: dict[str, int]

    @classmethod
    def of(cls, generation: GenerationConfig) -> SpecialTokens:
        """Read the ids from a Whisper generation config."""
        config: Any = generation
        end = config.eos_token_id
        multilingual = getattr(config, "is_multilingual", bool(getattr(config, "lang_to_id", None)))
        return cls(
            start=config.decoder_start_token_id,
            end=end[0] if isinstance(end, list) else end,
            no_timestamps=config.no_timestamps_token_id,
            languages={k.strip("<|>"): v for k, v in config.lang_to_id.items()}
            if multilingual
            else {},
            tasks=dict(config.task_to_id) if multilingual else {},
        )

    @property
    def no_speech(self) -> int:
        """``<|nospeech|>``: in every Whisper vocabulary the id before ``<|notimestamps|>``."""
        return self.no_timestamps - 1

    @property
    def first_timestamp(self) -> int:
        """``<|0.00|>``."""
        return self.no_timestamps + 1

    def check(self, language: str | None, task: str) -> None:
        """Refuse what this model cannot do.

        Raises:
            ConfigError: Unknown language, or an English-only model asked for more.
        """
        if self.languages:
            if language is not None and language_code(language) not in self.languages:
                raise ConfigError(
                    f"language {language!r} is unknown to this model: choose a code such as "
                    f"{', '.join(sorted(self.languages)[:8])}, or detect it with 'auto'"
                )
        elif language_code(language or "en") != "en" or task != "transcribe":
            raise ConfigError(
                f"this model only transcribes English, not language {language!r} with task "
                f"{task!r}: load a multilingual base"
            )

    def prompt(self, language: str | None, task: str, timestamps: bool) -> list[int]:
        """Decoder input before the first text token; same length for every language."""
        ids = [self.start]
        if self.languages and language is not None:
            ids += [self.languages[language_code(language)], self.tasks[task]]
        return ids if timestamps else [*ids, self.no_timestamps]


class NextTokenRules:
    """Suppression lists and timestamp grammar, as Whisper's authors define them.

    Args:
        generation: Holds ``suppress_tokens`` and ``begin_suppress_tokens``.
        options: Whether timestamps are wanted.
    """

    def __init__(self, generation: GenerationConfig, options: DecodeOptions):
        self._always = list(getattr(generation, "suppress_tokens", None) or [])
        self._first = list(getattr(generation, "begin_suppress_tokens", None) or [])
        self._timestamps: WhisperTimeStampLogitsProcessor | None = None
        if options.timestamps:
            self._timestamps = WhisperTimeStampLogitsProcessor(generation, begin_index=0)
            if self._timestamps.max_initial_timestamp_index is None:
                self._timestamps.max_initial_timestamp_index = _LATEST_START

    def __call__(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Log-probabilities of the next token, impossible ones at minus infinity.

        Args:
            logits: ``[rows, vocabulary]``.
            generated: Tokens after the prompt so far, ``[rows, tokens]``.

        Returns:
            ``[rows, vocabulary]`` in float32, or float64 for a float64 model.
        """
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        banned = self._always + (self._first if generated.shape[1] == 0 else [])
        if banned:
            scores[:, banned] = -torch.inf
        if self._timestamps is not None:
            scores = self._timestamps(generated, scores)
        return scores.log_softmax(dim=-1)


@dataclass(frozen=True)
class Segment:
    """A stretch of text.

    Attributes:
        start: Seconds.
        end: Seconds.
        text: Without white space at its ends.
    """

    start: float
    end: float
    text: str


def decode_text(tokenizer: Any, tokens: Sequence[int], special: SpecialTokens) -> str:
    """Text of tokens, special ones and timestamps left out, white space at the ends stripped."""
    text: str = tokenizer.decode([token for token in tokens if token < special.end])
    return text.strip()


def split_segments(
    tokenizer: Any, tokens: Sequence[int], special: SpecialTokens, seconds: float
) -> tuple[Segment, ...]:
    """Cut at timestamp tokens; a segment without its end lasts until ``seconds``."""
    segments: list[Segment] = []
    start, inside = 0.0, list[int]()

    def close(end: float) -> None:
        text = decode_text(tokenizer, inside, special)
        if text:
            segments.append(Segment(round(start, 2), round(max(start, end), 2), text))

    for token in tokens:
        if token < special.first_timestamp:
            inside.append(token)
            continue
        time = min(seconds, (token - special.first_timestamp) * TIMESTAMP_SECONDS)
        close(time)
        start, inside = time, []
    close(seconds)
    return tuple(segments)
