"""Cross entropy of Whisper's decoder, teacher forced."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.call import current
from speechadapt.data import Utterance
from speechadapt.errors import DataError
from speechadapt.training.examples import Batch, Listener

_IGNORED = -100


@dataclass(frozen=True)
class Targets:
    """Teacher-forcing tokens of a batch.

    Attributes:
        inputs: What the decoder reads, ``[batch, tokens]``.
        labels: What it should say next, ``[batch, tokens]``; -100 where nothing is asked.
        lengths: Tokens of each utterance, ``[batch]``; what follows is padding.
    """

    inputs: Tensor
    labels: Tensor
    lengths: Tensor


class WhisperObjective:
    """Turns references into tokens, and states into a loss.

    The prompt is Whisper's own: start of transcript, language, task, no timestamps.

    Args:
        backbone: Whose tokenizer and decoder are used.
        language: Language of the prompt for utterances that have none of their own.
    """

    listener: Listener | None = None

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

    def targets(self, batch: Batch) -> Targets:
        """Pad the tokens of a batch."""
        rows = [self.tokens(utterance) for utterance in batch.utterances]
        width = max(len(tokens) for tokens, _ in rows) - 1
        end = self.backbone.generation.eos_token_id
        inputs = torch.full((len(rows), width), end)
        labels = torch.full((len(rows), width), _IGNORED)
        for row, (tokens, prompt) in enumerate(rows):
            inputs[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
            # The frozen prompt is given, not learnt.
            labels[row, prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[prompt:])
        device = self.backbone.device
        lengths = torch.tensor([len(tokens) - 1 for tokens, _ in rows])
        return Targets(inputs.to(device), labels.to(device), lengths.to(device))

    def logits(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Logits of the tokens that are asked for, ``[tokens, vocabulary]``."""
        if (call := current()) is not None:
            call.token_lengths = targets.lengths
        states = self.backbone.decoder_states(targets.inputs, encoded)
        # The output projection is the widest product of the model: only where a label asks for it.
        logits = self.backbone.logits(states[targets.labels != _IGNORED])
        # Half precision would lose the sum over a vocabulary.
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def loss_of(self, logits: Tensor, encoded: Encoded, targets: Targets) -> Tensor:
        """Cross entropy of :meth:`logits`, summed, in nats."""
        labels = targets.labels[targets.labels != _IGNORED]
        return F.cross_entropy(logits, labels, reduction="sum")

    def loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Cross entropy summed over the labels, in nats. Needs the current call of the batch."""
        return self.loss_of(self.logits(encoded, targets), encoded, targets)
