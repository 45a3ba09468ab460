"""How the utterances of a batch lie in a tensor that an operator is given.

Padded, ``[batch, frames, dim]``: each utterance has the same number of frames. Packed, ``[frames of
all, dim]``: one after the other, with ``offsets`` ``[batch + 1]`` (``cu_seqlens``) that say where
each begins; the last is where all end. Either way ``slots`` ``[batch]`` says which adapter each
utterance uses, -1 = none. Slots and offsets stay on the device: no operator waits for them, so a
captured CUDA graph can be replayed with others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS

WIDEST_STATES = 2048


def spans(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, int, slice]]:
    """Of each utterance: its place in the batch, its slot, its rows in ``x.flatten(0, -2)``.

    Reads slots and offsets, so a GPU is waited for: for the torch forms alone.
    """
    bounds = _bounds(x, slots, offsets)
    for place, slot in enumerate(slots.tolist()):
        yield place, slot, slice(bounds[place], bounds[place + 1])


def runs(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, slice]]:
    """Of neighbours with one adapter: their slot, and their rows together, as :func:`spans`."""
    bounds = _bounds(x, slots, offsets)
    for slot, mine in neighbours(slots):
        yield slot, slice(bounds[mine.start], bounds[mine.stop])


def _bounds(x: Tensor, slots: Tensor, offsets: Tensor | None) -> list[int]:
    """Rows where each utterance begins, and where the last ends."""
    if offsets is not None:
        return [int(row) for row in offsets.tolist()]
    return [place * x.shape[1] for place in range(len(slots) + 1)]


def by_run(
    source: Tensor,
    base: Tensor,
    slots: Tensor,
    offsets: Tensor | None,
    adapted: Callable[[Tensor, Tensor, int], Tensor],
) -> Tensor:
    """The base with what adapters make of it, those of one adapter together.

    Args:
        source: What the adapters read.
        base: What is kept where there is none.
        slots: Adapter of each utterance.
        offsets: Where each begins, if they are packed.
        adapted: From rows of both and a slot: those of the base as that adapter leaves them.

    Raises:
        ValueError: Offsets leave frames out.
    """
    if not len(slots):
        return base.clone()
    rows, past = source.flatten(0, -2), base.flatten(0, -2)
    parts = [
        # What comes out is never what went in, not even where nobody has an adapter.
        past[span].clone() if slot < 0 else adapted(rows[span], past[span], slot)
        for slot, span in runs(source, slots, offsets)
    ]
    out = joined(parts)
    if len(out) != len(past):
        raise ValueError(f"offsets are of {len(out)} frames, and there are {len(past)}")
    return out.view(base.shape)


def joined(parts: list[Tensor]) -> Tensor:
    """One behind the other, contiguous; a single one that is so is not copied."""
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts).contiguous()


def neighbours(slots: Tensor) -> Iterator[tuple[int, slice]]:
    """Of neighbours with one adapter: their slot, and which utterances they are; reads slots."""
    for slot, same in itertools.groupby(enumerate(slots.tolist()), key=lambda each: each[1]):
        places = [place for place, _ in same]
        yield slot, slice(places[0], places[-1] + 1)


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
        if x.dim() != 3 or len(x) != len(slots):
            raise ValueError(
                f"{list(x.shape)} is not [batch, frames, dim] of {len(slots)} slots; packed frames "
                "need offsets"
            )
    elif x.dim() != 2 or len(offsets) != len(slots) + 1 or offsets.is_floating_point():
        raise ValueError(
            f"{list(x.shape)} with offsets {list(offsets.shape)} is not [frames, dim] and "
            f"[batch + 1] of {len(slots)} slots"
        )
