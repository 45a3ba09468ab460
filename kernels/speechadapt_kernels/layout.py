"""How the utterances of a batch lie in a tensor that an operator is given.

Padded, ``[batch, frames, dim]``: each utterance has the same number of frames. Packed, ``[frames of
all, dim]``: one after the other, with ``offsets`` ``[batch + 1]`` (``cu_seqlens``) that say where
each begins; the last is where all end. Either way ``slots`` ``[batch]`` says which adapter each
utterance uses, -1 = none. Slots and offsets stay on the device: no operator waits for them, so a
captured CUDA graph can be replayed with others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from speechadapt_kernels.activations import ACTIVATIONS

WIDEST_STATES = 2048
WIDEST_BOTTLENECK = 256
WIDEST_PLAIN = 512  # of the plain bottleneck, which may be several side by side


def spans(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, int, slice]]:
    """Of each utterance: its place in the batch, its slot, its rows in ``x.flatten(0, -2)``.

    Reads slots and offsets, so a GPU is waited for: for the torch forms alone.
    """
    if offsets is None:
        bounds = [place * x.shape[1] for place in range(len(slots) + 1)]
    else:
        bounds = offsets.tolist()
    for place, slot in enumerate(slots.tolist()):
        yield place, slot, slice(bounds[place], bounds[place + 1])


def runs(x: Tensor, slots: Tensor, offsets: Tensor | None) -> Iterator[tuple[int, slice]]:
    """Of neighbours with one adapter: their slot, and their rows together, as :func:`spans`."""
    for slot, same in itertools.groupby(spans(x, slots, offsets), key=lambda each: each[1]):
        rows = [span for *_, span in same]
        yield slot, slice(rows[0].start, rows[-1].stop)


def by_slot(values: Tensor, slots: Tensor, count: int) -> Tensor:
    """Sum over the utterances of each slot: ``[batch, ...]`` to ``[count, ...]``.

    A product with a matrix of zeros and ones: in a fixed order, without waiting for the device.
    """
    uses = slots == torch.arange(count, device=slots.device)[:, None]
    return (uses.to(values.dtype) @ values.flatten(1)).view(count, *values.shape[1:])


def fits(source: Tensor, base: Tensor, width: int) -> bool:
    """Whether operators have kernels for such padded states and a bottleneck of such a width."""
    wide = any(x.shape[-1] % 64 or x.shape[-1] > WIDEST_STATES for x in (source, base))
    return source.dim() == base.dim() == 3 and not wide and width <= WIDEST_PLAIN


def check_sizes(width: int, *dims: int, widest: int = WIDEST_BOTTLENECK) -> None:
    """Refuse widths that no kernel is made for.

    Args:
        width: Of the bottleneck.
        dims: Of states.
        widest: Bottleneck that there are kernels for.

    Raises:
        ValueError: They are none.
    """
    if any(dim % 64 or not 0 < dim <= WIDEST_STATES for dim in dims):
        raise ValueError(
            f"states of {' and '.join(map(str, dims))} values: expected multiples of 64, "
            f"{WIDEST_STATES} at most"
        )
    if width > widest:
        raise ValueError(f"a bottleneck of {width}: expected {widest} at most")


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
