"""The two loops over single tokens: one hypothesis an utterance, or a beam of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from speechadapt.decoding.state import DecoderState
from speechadapt.decoding.tokens import NextTokenRules

Found = tuple[list[int], float]
"""Tokens without the end, and the sum of their log-probabilities, the end's included."""

Pick = Callable[[Tensor, int], Tensor]
"""Next tokens ``[rows]`` from log-probabilities ``[rows, vocabulary]`` at a step."""


def argmax(logprobs: Tensor, _step: int) -> Tensor:
    """The most probable token."""
    return logprobs.argmax(dim=-1)


def sampler(temperature: float, seed: int, steps: int) -> Pick:
    """Draws by inverting the distribution, with one number a step.

    The numbers depend on the seed, the temperature and the step alone, never on the batch, so that
    an utterance gets the same samples in any company.
    """
    generator = torch.Generator().manual_seed(seed * 1_000 + round(temperature * 100))
    numbers = torch.rand(steps, generator=generator, dtype=torch.float64).tolist()

    def pick(logprobs: Tensor, step: int) -> Tensor:
        mass = (logprobs.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
        # Scaled by the last sum, which rounding keeps from being exactly 1.
        chosen = torch.searchsorted(mass, numbers[step] * mass[:, -1:], right=True)
        return chosen.squeeze(-1).clamp(max=mass.shape[-1] - 1)

    return pick


def one_by_one(
    state: DecoderState,
    logits: Tensor,
    rules: NextTokenRules,
    end: int,
    budgets: Sequence[int],
    pick: Pick,
) -> list[Found]:
    """One hypothesis an utterance, token by token.

    Args:
        state: After the prompt, one row an utterance.
        logits: Of the first token, ``[utterances, vocabulary]``.
        rules: Which tokens may come next.
        end: ``<|endoftext|>``.
        budgets: Most tokens of each utterance.
        pick: Chooses among them.
    """
    tokens: list[list[int]] = [[] for _ in budgets]
    sums = [0.0] * len(budgets)
    open_ = [True] * len(budgets)
    live = list(range(len(budgets)))  # utterance of each row
    generated = torch.empty((len(live), 0), dtype=torch.long, device=logits.device)
    step = 0
    while True:
        logprobs = rules(logits, generated)
        chosen = pick(logprobs, step)
        scores = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        for utterance, token, score in zip(live, chosen.tolist(), scores, strict=True):
            if not open_[utterance]:
                continue
            sums[utterance] += score
            if token == end:
                open_[utterance] = False
            else:
                tokens[utterance].append(token)
                open_[utterance] = len(tokens[utterance]) < budgets[utterance]
        generated = torch.cat([generated, chosen[:, None]], dim=1)
        stay = [row for row, utterance in enumerate(live) if open_[utterance]]
        if not stay:
            return list(zip(tokens, sums, strict=True))
        if _worth_shrinking(len(stay), len(live)):
            state.keep(stay)
            live, generated = [live[row] for row in stay], generated[stay]
        logits = state.logits(generated[:, -1:])
        step += 1


def beam_search(
    state: DecoderState,
    logits: Tensor,
    rules: NextTokenRules,
    end: int,
    budgets: Sequence[int],
    width: int,
) -> list[Found]:
    """Beam search: ``width`` hypotheses an utterance until as many have ended.

    The best log-probability a token wins. As Whisper's authors do, a hypothesis cut by its budget
    counts only where none has ended: a loop of confident repetitions would win over the truth.

    Args:
        state: After the prompt, one row an utterance.
        logits: Of the first token, ``[utterances, vocabulary]``.
        rules: Which tokens may come next.
        end: ``<|endoftext|>``.
        budgets: Most tokens of each utterance.
        width: Hypotheses kept.
    """
    ended: list[list[tuple[float, Found]]] = [[] for _ in budgets]
    open_ = [True] * len(budgets)
    live = list(range(len(budgets)))  # utterance of each group of rows
    generated = torch.empty((len(live), 1, 0), dtype=torch.long, device=logits.device)
    running = logits.new_zeros((len(live), 1), dtype=torch.float64)
    while True:
        groups, beams, length = generated.shape
        length += 1
        logprobs = rules(logits, generated.flatten(0, 1)).double()
        vocabulary = logprobs.shape[-1]
        totals = (logprobs.view(groups, beams, vocabulary) + running[..., None]).flatten(1)
        # Twice the width: at least so many are left when every beam offers its end.
        top = totals.topk(2 * width, dim=-1)
        parents = top.indices // vocabulary
        chosen = top.indices % vocabulary
        sequences = generated.gather(1, parents[..., None].expand(-1, -1, length - 1))
        sequences = torch.cat([sequences, chosen[..., None]], dim=-1)

        scores, finals = top.values.tolist(), (chosen == end).tolist()
        survivors: list[list[int]] = []
        for group, utterance in enumerate(live):
            full = length >= budgets[utterance]
            going = [rank for rank in range(2 * width) if not finals[group][rank]]
            survivors.append(going[:width])
            if not open_[utterance]:
                continue
            candidates = [rank for rank in range(width) if finals[group][rank]]
            if full and not ended[utterance] and not candidates:
                candidates = [0]
            for rank in candidates:
                ids = [token for token in sequences[group, rank].tolist() if token != end]
                total = scores[group][rank]
                ended[utterance].append((total / length, (ids, total)))
            open_[utterance] = not full and len(ended[utterance]) < width

        stay = [group for group, utterance in enumerate(live) if open_[utterance]]
        if not stay:
            return [max(found, key=lambda item: item[0])[1] for found in ended]
        order = torch.tensor(survivors, device=logits.device)
        generated = sequences.gather(1, order[..., None].expand(-1, -1, length))
        running = top.values.gather(1, order)
        parents = parents.gather(1, order)
        if state.beams != width:
            state.widen(width)
        else:
            base = torch.arange(groups, device=logits.device)[:, None] * width
            state.reorder((base + parents).flatten())
        if _worth_shrinking(len(stay), len(live)):
            state.keep(stay)
            live = [live[group] for group in stay]
            generated, running = generated[stay], running[stay]
        logits = state.logits(generated[..., -1].reshape(-1, 1))


def _worth_shrinking(stay: int, rows: int) -> bool:
    """Copying the caches costs about two steps over them, so not for every row that ends."""
    return stay <= 0.75 * rows
