"""CTC (Graves et al. 2006): a distribution over characters, or none, at each position."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.tokens import read_json
from speechadapt.errors import CheckpointError, ConfigError
from speechadapt.heads.head import Head, linear


@dataclass(frozen=True)
class CtcConfig:
    """A vocabulary.

    Attributes:
        tokens: What each output stands for, by index.
        blank: Index of the output that stands for nothing.
        delimiter: The token between words.
        silent: Further tokens that never become text, such as ``<s>``.
    """

    tokens: tuple[str, ...]
    blank: int = 0
    delimiter: str = "|"
    silent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.tokens)) < len(self.tokens) or not 0 <= self.blank < len(self.tokens):
            raise ConfigError(
                f"head: {len(self.tokens)} tokens with blank {self.blank} cannot be used: give "
                "each token once, and the index of one of them"
            )


class CtcHead(Head):
    """One linear layer: ``proj.weight`` ``[tokens, dim]`` and ``proj.bias`` ``[tokens]``."""

    kind: ClassVar[str] = "ctc"
    config: CtcConfig

    @classmethod
    def fresh(cls, config: CtcConfig, dim: int, generator: torch.Generator) -> CtcHead:
        """Every token about as likely."""
        return cls(config, linear(len(config.tokens), dim, generator))

    def log_probs(self, states: Tensor) -> Tensor:
        """Log-probabilities ``[batch, positions, tokens]`` from states ``[..., dim]``."""
        logits = F.linear(states, self.tensors["proj.weight"], self.tensors["proj.bias"])
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def spoken(text: str) -> str:
    """What of a transcript can be heard: lower-case letters, marks, digits and apostrophes, with
    single spaces between words."""
    kept = (
        c if c in "'’" or unicodedata.category(c)[0] in "LMN" else " "
        for c in unicodedata.normalize("NFC", text).lower()
    )
    return " ".join("".join(kept).split())


def vocabulary_of(texts: Iterable[str]) -> CtcConfig:
    """The vocabulary of transcripts: nothing, the word delimiter, and every character heard."""
    characters = {c for text in texts for c in spoken(text)} - {" "}
    return CtcConfig(("<pad>", "|", *sorted(characters)))


def read_vocabulary(folder: Path, language: str | None = None) -> CtcConfig:
    """The vocabulary of a folder that transformers' CTC tokenizer wrote.

    Args:
        folder: Holds ``vocab.json`` and ``tokenizer_config.json``.
        language: Of a vocabulary that has several (MMS).

    Raises:
        CheckpointError: The files are missing or damaged.
    """
    path = folder / "vocab.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing, so what the outputs stand for is not known; copy the tokenizer's "
            "files of the model there"
        )
    settings_path = folder / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.is_file() else {}
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
        if vocabulary and all(isinstance(value, dict) for value in vocabulary.values()):
            language = language or settings.get("target_lang") or next(iter(vocabulary))
            vocabulary = vocabulary[language]
        tokens: list[str] = [""] * (max(vocabulary.values()) + 1)
        for token, index in vocabulary.items():
            tokens[index] = token
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no vocabulary ({error!r})") from None
    special = {
        name: _content(settings.get(name, default))
        for name, default in (
            ("pad_token", "<pad>"),
            ("unk_token", "<unk>"),
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("word_delimiter_token", "|"),
        )
    }
    blank, delimiter = special.pop("pad_token"), special.pop("word_delimiter_token")
    if blank not in tokens:
        raise CheckpointError(f"{path}: has no {blank}, the token that stands for nothing")
    return CtcConfig(tuple(tokens), tokens.index(blank), delimiter, tuple(special.values()))


def _content(token: object) -> str:
    """A token's text: newer files describe special tokens with a mapping."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)
