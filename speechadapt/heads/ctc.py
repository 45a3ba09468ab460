"""CTC (Graves et al. 2006): a distribution over characters or pieces of words, or none, at each
position."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, trainers
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.backbones.tokens import read_json
from speechadapt.errors import CheckpointError, ConfigError
from speechadapt.files import write_json, write_text
from speechadapt.heads.head import Head, linear
from speechadapt.typed import check_types

_OPENS = (
    "\u2581"  # a lower block, with which pieces that open a word begin, as SentencePiece has it
)

_BLANK, _DELIMITER = "\0blank", "\0delimiter"  # no vocabulary has such tokens

# transformers' names of tokens that never become text, and what they are by default
_SILENT = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


@dataclass(frozen=True)
class CtcConfig:
    """A vocabulary.

    Attributes:
        tokens: What each output stands for, by index.
        blank: Index of the output that stands for nothing.
        delimiter: The token between words; with ``pieces``, what a token that opens a word begins
            with.
        silent: Further tokens that never become text, such as ``<s>``.
        layers: States the head reads: the first layer's input and every layer's output; 0 = those
            of the last layer alone.
        pieces: Whether tokens are pieces of words (byte-pair encoding, Sennrich et al. 2016), in
            the order in which they were merged.
    """

    tokens: tuple[str, ...]
    blank: int = 0
    delimiter: str = "|"
    silent: tuple[str, ...] = ()
    layers: int = 0
    pieces: bool = False

    def __post_init__(self) -> None:
        check_types(self, ConfigError, "head")
        if len(set(self.tokens)) < len(self.tokens) or not 0 <= self.blank < len(self.tokens):
            raise ConfigError(
                f"head: {len(self.tokens)} tokens with blank {self.blank} cannot be used: give "
                "each token once, and the index of one of them"
            )

    @cached_property
    def index(self) -> dict[str, int]:
        """Index of each token."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def upper_case(self) -> bool:
        """Whether it has letters in upper case only, as checkpoints often do."""
        letters = [token for token in self.tokens if len(token) == 1 and token.isalpha()]
        return any(map(str.isupper, letters)) and not any(map(str.islower, letters))

    def spell(self, text: str) -> list[str]:
        """The tokens of a text that :func:`spoken` made; characters it lacks stay in."""
        text = text.upper() if self.upper_case else text
        if not self.pieces:
            return [self.delimiter if character == " " else character for character in text]
        return [piece for word in text.split() for piece in self._merge(self.delimiter + word)]

    def _merge(self, word: str) -> list[str]:
        """Neighbours become one as long as that makes a token, those merged first in training
        first."""
        parts, index = list(word), self.index
        while len(parts) > 1:
            pairs = [a + b for a, b in itertools.pairwise(parts)]
            best = min(pairs, key=lambda pair: index.get(pair, len(index)))
            if best not in index:
                break
            at = pairs.index(best)
            parts[at : at + 2] = [best]
        return parts


class CtcHead(Head):
    """One linear layer: ``proj.weight`` ``[tokens, dim]`` and ``proj.bias`` ``[tokens]``."""

    kind: ClassVar[str] = "ctc"
    config: CtcConfig

    @classmethod
    def fresh(cls, config: CtcConfig, dim: int, generator: torch.Generator) -> CtcHead:
        """Every token about as likely."""
        return cls(config, linear(len(config.tokens), dim, config.layers, generator))

    def start_from(self, other: CtcHead) -> None:
        """Take over what another head on the same states has learnt of the tokens both have.

        The blank and the word delimiter are two of them; letters are the same in either case.
        """
        tokens = list(enumerate(other.config.tokens))
        theirs = {token.lower(): place for place, token in tokens} | {
            t: place for place, t in tokens
        }
        theirs[_DELIMITER] = other.config.index.get(other.config.delimiter, -1)
        theirs[_BLANK] = other.config.blank
        for place, token in enumerate(self.config.tokens):
            token = _BLANK if place == self.config.blank else token
            token = _DELIMITER if token == self.config.delimiter else token
            found = theirs.get(token, theirs.get(token.lower(), -1))
            if found >= 0:
                for key in ("proj.weight", "proj.bias"):
                    self.tensors[key].data[place] = other.tensors[key].data[found].cpu()

    def log_probs(self, encoded: Encoded) -> Tensor:
        """Log-probabilities ``[batch, positions, tokens]``."""
        logits = F.linear(
            self.read(encoded), self.tensors["proj.weight"], self.tensors["proj.bias"]
        )
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


def pieces_of(texts: Iterable[str], size: int) -> CtcConfig:
    """A vocabulary of byte pairs (Sennrich et al. 2016): the characters of transcripts, then what
    stands side by side in them most often.

    Args:
        texts: Of the training data.
        size: Tokens to have, nothing and the characters included; fewer where the data have no
            more.

    Raises:
        ConfigError: The characters alone are more.
    """
    words = [_OPENS + word for text in texts for word in spoken(text).split()]
    least = 1 + len(set("".join(words)))
    if size < least:
        raise ConfigError(
            f"a vocabulary of {size} tokens is too small: the characters of the data are {least} "
            "already"
        )
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=size - 1, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    found = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = ("<pad>", *(token for token, _ in found))
    return CtcConfig(tokens, delimiter=_OPENS, pieces=True)


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
    blank = _content(settings.get("pad_token", "<pad>"))
    delimiter = _content(settings.get("word_delimiter_token", "|"))
    silent = tuple(_content(settings.get(name, token)) for name, token in _SILENT.items())
    if blank not in tokens:
        raise CheckpointError(f"{path}: has no {blank}, the token that stands for nothing")
    return CtcConfig(tuple(tokens), tokens.index(blank), delimiter, silent)


def write_vocabulary(folder: Path, config: CtcConfig) -> None:
    """Write the files that :func:`read_vocabulary` and transformers' CTC tokenizer read."""
    indices = {token: index for index, token in enumerate(config.tokens)}
    write_text(folder / "vocab.json", json.dumps(indices, ensure_ascii=False) + "\n")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "do_lower_case": False,
            **dict(zip(_SILENT, config.silent, strict=False)),
            "pad_token": config.tokens[config.blank],
            "word_delimiter_token": config.delimiter,
        },
    )


def _content(token: object) -> str:
    """A token's text: newer files describe special tokens with a mapping."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)
