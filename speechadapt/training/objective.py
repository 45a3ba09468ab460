"""What a run minimises: cross entropy of Whisper's decoder, teacher forced, or CTC."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Backbone, Encoded
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt.heads.ctc import CtcHead, spoken

_IGNORED = -100


class Objective(Protocol):
    """Turns references into targets, and encoder states into a loss."""

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` about an utterance that cannot be learnt."""
        ...

    def targets(self, utterances: Sequence[Utterance]) -> Any:
        """What a batch should become."""
        ...

    def count(self, targets: Any) -> int:
        """Symbols in the targets; the loss is reported for each."""
        ...

    def loss(self, encoded: Encoded, targets: Any) -> Tensor:
        """Loss summed over the symbols, in nats. Needs the current call of the batch."""
        ...


@dataclass(frozen=True)
class Targets:
    """Teacher-forcing tokens of a batch.

    Attributes:
        inputs: What the decoder reads, ``[batch, tokens]``.
        labels: What it should say next, ``[batch, tokens]``; -100 where nothing is asked.
    """

    inputs: Tensor
    labels: Tensor


class WhisperObjective:
    """Turns references into tokens, and states into a loss.

    The prompt is Whisper's own: start of transcript, language, task, no timestamps.

    Args:
        backbone: Whose tokenizer and decoder are used.
        language: Language of the prompt for utterances that have none of their own.
    """

    def __init__(self, backbone: WhisperBackbone, language: str | None = None):
        self.backbone = backbone
        self.language = language

    def prompt(self, language: str | None) -> list[int]:
        """Prompt tokens for ``language``.

        Raises:
            DataError: This Whisper does not know the language.
        """
        generation = self.backbone.generation
        prompt = [generation.decoder_start_token_id]
        if generation.is_multilingual:
            token = generation.lang_to_id.get(f"<|{language}|>")
            if token is None:
                raise DataError(
                    f"language {language!r} is not one of Whisper's; give one of its codes, "
                    "such as be or ro, with --language or in utt2lang"
                )
            prompt += [token, generation.task_to_id["transcribe"]]
        return [*prompt, generation.no_timestamps_token_id]

    def tokens(self, utterance: Utterance) -> tuple[list[int], int]:
        """Prompt, text and end of one utterance, and the length of the prompt.

        Raises:
            DataError: No transcript, or it is longer than the decoder reaches.
        """
        if utterance.text is None:
            raise DataError(f"utterance {utterance.id}: no transcript; training needs one")
        prompt = self.prompt(utterance.language or self.language)
        # Whisper's own transcripts begin with a space; its tokens then fit the text better.
        text = self.backbone.tokenizer(" " + utterance.text.strip(), add_special_tokens=False)
        tokens = [*prompt, *text.input_ids, self.backbone.generation.eos_token_id]
        limit = self.backbone.model.config.max_target_positions
        if len(tokens) > limit + 1:
            raise DataError(
                f"utterance {utterance.id}: its transcript is {len(tokens)} tokens long, Whisper's "
                f"decoder reaches {limit}; cut the recording into shorter utterances"
            )
        return tokens, len(prompt)

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` where :meth:`tokens` does."""
        self.tokens(utterance)

    def count(self, targets: Targets) -> int:
        """Tokens that are asked for."""
        return int((targets.labels != _IGNORED).sum())

    def targets(self, utterances: Sequence[Utterance]) -> Targets:
        """Pad the tokens of a batch."""
        rows = [self.tokens(utterance) for utterance in utterances]
        width = max(len(tokens) for tokens, _ in rows) - 1
        end = self.backbone.generation.eos_token_id
        inputs = torch.full((len(rows), width), end)
        labels = torch.full((len(rows), width), _IGNORED)
        for row, (tokens, prompt) in enumerate(rows):
            inputs[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            # The frozen prompt is given, not learnt.
            labels[row, prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[prompt:])
        device = self.backbone.device
        return Targets(inputs.to(device), labels.to(device))

    def loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Cross entropy summed over the labels, in nats. Needs the current call of the batch."""
        states = self.backbone.decoder_states(targets.inputs, encoded)
        asked = targets.labels != _IGNORED
        # The output projection is the widest product of the model: only where a label asks for it.
        logits = self.backbone.logits(states[asked])
        # Half precision would lose the sum over a vocabulary.
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(precise, targets.labels[asked], reduction="sum")


class CtcObjective:
    """CTC loss (Graves et al. 2006) over what can be heard of the references.

    Args:
        backbone: Says how many positions an utterance has.
        head: Whose vocabulary is used.
        trailing_silence: Seconds after each utterance.
    """

    def __init__(self, backbone: Backbone, head: CtcHead, trailing_silence: float):
        self.backbone, self.head, self.trailing_silence = backbone, head, trailing_silence
        self._index = {token: index for index, token in enumerate(head.config.tokens)}

    def tokens(self, utterance: Utterance) -> list[int]:
        """Indices of an utterance's characters.

        Raises:
            DataError: No transcript, nothing to hear in it, or a character that the vocabulary
                does not have.
        """
        if utterance.text is None:
            raise DataError(f"utterance {utterance.id}: no transcript; training needs one")
        text = spoken(utterance.text).replace(" ", self.head.config.delimiter)
        if not text:
            raise DataError(
                f"utterance {utterance.id}: nothing of its transcript {utterance.text!r} can be "
                "heard; leave it out"
            )
        if unknown := sorted(set(text) - set(self._index)):
            raise DataError(
                f"utterance {utterance.id}: the vocabulary has no {' '.join(unknown)}; train on "
                "data that have it, or leave the utterance out"
            )
        return [self._index[character] for character in text]

    def check(self, utterance: Utterance) -> None:
        """Raise :class:`DataError` also where the audio is too short for the transcript."""
        tokens = self.tokens(utterance)
        if utterance.duration is None:
            return
        # A blank has to stand between two equal characters.
        needed = len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
        seconds = utterance.duration + self.trailing_silence
        if needed * self.backbone.position_seconds > seconds:
            raise DataError(
                f"utterance {utterance.id}: {seconds:.2f} s have no room for the {len(tokens)} "
                "characters of its transcript; is the recording cut short?"
            )

    def targets(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Indices of each utterance's characters."""
        return [self.tokens(utterance) for utterance in utterances]

    def count(self, targets: list[list[int]]) -> int:
        """Characters of all utterances."""
        return sum(map(len, targets))

    def loss(self, encoded: Encoded, targets: list[list[int]]) -> Tensor:
        """CTC loss summed over the batch, in nats."""
        log_probs = self.head.log_probs(encoded.states).transpose(0, 1)
        device = log_probs.device
        return F.ctc_loss(
            log_probs,
            torch.tensor([token for tokens in targets for token in tokens], device=device),
            encoded.lengths,
            torch.tensor([len(tokens) for tokens in targets], device=device),
            blank=self.head.config.blank,
            reduction="sum",
            zero_infinity=True,
        )
