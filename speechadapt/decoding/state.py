"""A decoder pass under way: caches, the call its hooks read, and who is still in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from speechadapt.backbones.base import Encoded
from speechadapt.call import running
from speechadapt.model import SpeechModel
from speechadapt.route import Route


class DecoderState:
    """Keys and values of a batch of hypotheses.

    Rows are the hypotheses of the utterances in order, ``beams`` consecutive ones for each.

    Args:
        model: The frozen model and its adapters.
        encoded: Encoder output, one item for each utterance.
        routes: One for each utterance.
    """

    def __init__(self, model: SpeechModel, encoded: Encoded, routes: Sequence[Route]):
        self._backbone = model.backbone
        self._states = encoded.states
        self._lengths = encoded.lengths
        # Made once: a call keeps the adapters it started with, however many steps follow.
        self._call = model.call(routes, encoded)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.beams = 1

    def feed(self, tokens: Tensor) -> Tensor:
        """Run the decoder over more tokens.

        Args:
            tokens: ``[rows, new]``.

        Returns:
            States before the output projection, ``[rows, new, dim]``.
        """
        with running(self._call):
            output = self._backbone.model.model.decoder(
                input_ids=tokens,
                encoder_hidden_states=self._states,
                past_key_values=self._cache,
                use_cache=True,
            )
        return output.last_hidden_state

    def logits(self, tokens: Tensor) -> Tensor:
        """Feed tokens and give the logits after the last, ``[rows, vocabulary]``."""
        return self._backbone.logits(self.feed(tokens)[:, -1])

    def widen(self, beams: int) -> None:
        """Copy each utterance's only row ``beams`` times."""
        if beams > 1:
            self._cache.batch_repeat_interleave(beams)
        self.beams = beams

    def reorder(self, rows: Tensor) -> None:
        """Continue from these rows (``[rows]``), each within its own utterance.

        What an utterance's hypotheses attend to in the encoder is the same, so only the
        self-attention moves.
        """
        self._cache.self_attention_cache.reorder_cache(rows)

    def keep(self, utterances: Sequence[int]) -> None:
        """Go on with some of the utterances, without encoder positions that none of them uses."""
        index = torch.tensor(utterances, device=self._lengths.device)
        rows = torch.arange(self.beams, device=index.device) + index[:, None] * self.beams
        self._cache.batch_select_indices(rows.flatten())
        self._lengths = self._lengths[index]
        longest = int(self._lengths.max())
        layers: Any = self._cache.cross_attention_cache.layers
        for layer in layers:
            layer.keys = layer.keys[:, :, :longest]
            layer.values = layer.values[:, :, :longest]
        uneven = bool((self._lengths != longest).any())
        self._call = self._call.keep(utterances, self._lengths if uneven else None)
