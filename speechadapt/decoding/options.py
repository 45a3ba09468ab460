"""What a user can choose about decoding."""

from __future__ import annotations

from dataclasses import dataclass

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from speechadapt.errors import ConfigError

TASKS = ("transcribe", "translate")


@dataclass(frozen=True)
class DecodeOptions:
    """Settings of the search; the defaults are those of Whisper's authors, but greedy.

    Attributes:
        language: Whisper's code (``be``) or English name (``belarusian``); None = detect.
        task: ``transcribe``, or ``translate`` into English.
        beam_size: Hypotheses kept at temperature 0; 1 = greedy.
        temperatures: Tried in this order until a hypothesis passes the two thresholds below; above
            0 tokens are sampled. One value = no fallback.
        compression_ratio_threshold: Above this, text repeats itself: try the next temperature; None
            = never.
        logprob_threshold: Below this average log-probability a token: try the next temperature;
            None = never.
        no_speech_threshold: Above this probability of ``<|nospeech|>``, and with a log-probability
            that fails its threshold, the utterance is silence: empty text, no fallback; None =
            never.
        max_tokens: Most tokens of one utterance; None = bounded by its seconds
            (:func:`speechadapt.decoding.search.token_budget`).
        timestamps: Let Whisper write its own segment times.
        word_timestamps: Align words with the audio by cross-attention.
        seed: Of sampling; an utterance gets the same samples in any batch.

    Raises:
        ConfigError: A value is out of range.
    """

    language: str | None = None
    task: str = "transcribe"
    beam_size: int = 1
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    max_tokens: int | None = None
    timestamps: bool = False
    word_timestamps: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"task {self.task!r} is unknown: use one of {', '.join(TASKS)}")
        if self.beam_size < 1:
            raise ConfigError(f"beam size {self.beam_size} is too small: use 1 (greedy) or more")
        if not self.temperatures or any(not 0 <= t <= 10 for t in self.temperatures):
            raise ConfigError(
                f"temperatures {self.temperatures} cannot be used: give at least one, each 0 to 10"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens {self.max_tokens} is too small: use 1 or more")
        if self.no_speech_threshold is not None and not 0 <= self.no_speech_threshold <= 1:
            raise ConfigError(
                f"no_speech_threshold {self.no_speech_threshold} is no probability: use 0 to 1"
            )
        if self.language is not None:
            object.__setattr__(self, "language", language_code(self.language))


def language_code(language: str) -> str:
    """Whisper's code of a language given by code or English name.

    Whether the loaded model knows the language is checked when decoding starts.
    """
    language = language.strip().lower()
    return TO_LANGUAGE_CODE.get(language, language)
