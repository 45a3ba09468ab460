"""How the utterances of a batch lie in a tensor that an operator is given.

Padded, ``[batch, frames, dim]``: each utterance has the same number of frames. Packed, ``[frames of
all, dim]``: one after the other, with ``offsets`` ``[batch + 1]`` (``cu_seqlens``) that say where
each begins; the last is where all end. Either way ``slots`` ``[batch]`` says which adapter each
utterance uses, -1 = none. Slots and offsets stay on the device: no operator waits for them, so a
captured CUDA graph can be replayed with others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS
from speechadapt_kernels.plan import rows_at_once

WIDEST_STATES = 2048
Run = tuple[int, int, int]
"""Of neighbours with one adapter: their slot, where they begin and where they end."""
Adapted = Callable[[Tensor, Tensor, int, Tensor | None], Tensor]
"""See :func:`by_run`."""


def spans(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, int, slice]]:
    """Of each utterance: its place in the batch, its slot, its rows in ``x.flatten(0, -2)``.

    Reads slots and offsets, so a GPU is waited for: for the torch forms alone.
    """
    bounds = _bounds(x, slots, offsets)
    for place, slot in enumerate(slots.tolist()):
        yield place, slot, slice(bounds[place], bounds[place + 1])


def runs(x: Tensor, slots: Tensor, offsets: Tensor | None) -> list[Run]:
    """Runs of rows in ``x.flatten(0, -2)``; reads slots and offsets, as :func:`spans`."""
    bounds = _bounds(x, slots, offsets)
    return [(slot, bounds[begin], bounds[end]) for slot, begin, end in neighbours(slots)]


def _bounds(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Sequence[int]:
    """Rows where each utterance begins, and where the last ends.

    Raises:
        ValueError: Offsets are no such rows.
    """
    if offsets is not None:
        bounds: list[int] = offsets.tolist()
        if bounds[0] or bounds[-1] != len(x) or any(b < a for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"offsets are not ascending from 0 to {len(x)}, the frames there are")
        return bounds
    frames = x.shape[1]
    return range(0, (slots.shape[0] + 1) * frames, frames) if frames else [0] * (len(slots) + 1)


def by_run(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    offsets: Tensor | None,
    adapted: Adapted,
    learns: bool,
) -> Tensor:
    """The base with what adapters make of it, those of one adapter together.

    Args:
        source: What the adapters read.
        base: What is kept where there is none.
        slots: Adapter of each utterance.
        offsets: Where each begins, if they are packed.
        adapted: From rows of both, a slot and where to write: those of the base as that adapter
            leaves them. Where to write is None = anew.
        learns: Whether gradients have to find their way back. If not, rows are taken in blocks.

    Raises:
        ValueError: Offsets leave frames out, or go back.
    """
    rows, past = source.flatten(0, -2), base.flatten(0, -2)
    one = sole(slots) if offsets is None else -1
    if one >= 0 and (learns or past.shape[0] <= rows_at_once(past)):
        # Uncut, and nothing more is asked: that takes as long as the sums of some frames.
        return adapted(rows, past, one, None).contiguous().view(base.shape)
    form = _joined if learns else _in_blocks
    return form(rows, past, runs(source, slots, offsets), adapted).view(base.shape)


def _joined(rows: Tensor, past: Tensor, each: list[Run], adapted: Adapted) -> Tensor:
    """One run behind the other. Split, not cut: the gradient of a cut is as large as what it is cut
    from."""
    sizes = [end - begin for _, begin, end in each]
    parts = [
        # What comes out is never what went in, not even where nobody has an adapter.
        kept.clone() if slot < 0 else adapted(x, kept, slot, None)
        for (slot, *_), x, kept in zip(each, rows.split(sizes), past.split(sizes), strict=True)
    ]
    if all(slot < 0 for slot, *_ in each):
        parts.append(adapted(rows[:0], past[:0], 0, None))  # leads to the weights
    return torch.cat(parts).contiguous()


def _in_blocks(rows: Tensor, past: Tensor, each: list[Run], adapted: Adapted) -> Tensor:
    """Every run in blocks that the caches hold, written where they belong."""
    out = torch.empty_like(past, memory_format=torch.contiguous_format)
    most = rows_at_once(past)
    for slot, begin, end in each:
        # As large as each other: what is freed behind one fits the next.
        blocks = max(1, -(-(end - begin) // most))
        for index in range(blocks):
            first, last = (begin + (end - begin) * at // blocks for at in (index, index + 1))
            if slot < 0:
                out[first:last] = past[first:last]
            else:
                adapted(rows[first:last], past[first:last], slot, out[first:last])
    return out


def sole(slots: Tensor) -> int:
    """The adapter that all utterances use, -1 = there is none; reads slots."""
    order: list[int] = slots.tolist()
    return order[0] if order and order.count(order[0]) == len(order) else -1


def neighbours(slots: Tensor) -> list[Run]:
    """Runs of utterances; reads slots."""
    order = slots.tolist()
    begins = [place for place, slot in enumerate(order) if not place or slot != order[place - 1]]
    ends = [*begins[1:], len(order)] if order else []
    return [(order[begin], begin, end) for begin, end in zip(begins, ends, strict=True)]


def by_slot(values: Tensor, slots: Tensor, count: int) -> Tensor:
    """Sum over the utterances of each slot: ``[batch, ...]`` to ``[count, ...]``.

    A product with a matrix of zeros and ones: in a fixed order, without waiting for the device.
    """
    uses = slots == torch.arange(count, device=slots.device)[:, None]
    return (uses.to(values.dtype) @ values.flatten(1)).view(count, *values.shape[1:])


def fits(source: Tensor, base: Tensor, width: int) -> bool:
    """Whether there are kernels for such padded states and a bottleneck of such a width."""
    odd = any(x.shape[-1] % 64 or x.shape[-1] > WIDEST_STATES for x in (source, base))
    return source.dim() == base.dim() == 3 and not odd and width <= widest(source.dtype)


def widest(dtype: torch.dtype) -> int:
    """Bottleneck that there are kernels for; several side by side count together."""
    return 512 if dtype.itemsize == 2 else 256


def check_dims(*dims: int) -> None:
    """Refuse widths of states that no kernel is made for.

    Raises:
        ValueError: They are none.
    """
    if any(dim % 64 or not 0 < dim <= WIDEST_STATES for dim in dims):
        raise ValueError(
            f"states of {' and '.join(map(str, dims))} values: expected multiples of 64, "
            f"{WIDEST_STATES} at most"
        )


def check_width(width: int, most: int) -> None:
    """Refuse bottlenecks that no Triton kernel is made for.

    Raises:
        ValueError: They are wider.
    """
    if width > most:
        raise ValueError(
            f"a bottleneck of {width}: Triton's kernels take {most} at most; "
            "SPEECHADAPT_KERNELS=torch takes any"
        )


def check_arithmetic(x: Tensor, weights: Tensor | None, activation: str) -> None:
    """Refuse weights that were folded for other states, and activations there are not.

    Raises:
        ValueError: They are such.
    """
    if weights is not None and weights.dtype != x.dtype:
        raise ValueError(
            f"weights folded for {weights.dtype} do not fit states of {x.dtype}: fold them for "
            "these"
        )
    if activation not in (*ACTIVATIONS, "identity"):
        raise ValueError(f"activation {activation!r}: expected {', '.join(ACTIVATIONS)}, identity")


def check_layout(x: Tensor, slots: Tensor, offsets: Tensor | None) -> None:
    """Refuse shapes that do not go together.

    Raises:
        ValueError: They do not.
    """
    if slots.dim() != 1 or slots.is_floating_point():
        raise ValueError(f"slots are integers [batch], not {slots.dtype} {list(slots.shape)}")
    if offsets is None:
        if x.dim() != 3 or x.shape[0] != slots.shape[0]:
            raise ValueError(
                f"{list(x.shape)} is not [batch, frames, dim] of {len(slots)} slots; packed frames "
                "need offsets"
            )
    elif x.dim() != 2 or offsets.shape[0] != slots.shape[0] + 1 or offsets.is_floating_point():
        raise ValueError(
            f"{list(x.shape)} with offsets {list(offsets.shape)} is not [frames, dim] and "
            f"[batch + 1] of {len(slots)} slots"
        )
