"""Log-mel features as an operator of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from speechadapt_kernels.dispatch import learns, runs_plain, uses_triton
from speechadapt_kernels.logmel import plain
from speechadapt_kernels.logmel.settings import FREQUENCIES, WINDOW


def log_mel(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    """Whisper's features of a batch of waves (Radford et al. 2022, section 2.2).

    Args:
        waves: 16 kHz, ``[batch, samples]``, float32, at least half a window long. Beyond its ends a
            wave is mirrored, so one that is shorter than its row is best followed by silence.
        lengths: Frames of each utterance, ``[batch]``; frames that lie beyond the samples are
            silence.
        filters: Mel filters, ``[bins, 201]``.
        frames: To make; at least the longest of ``lengths``.

    Returns:
        ``[batch, bins, frames]``, scaled as Whisper's, 0 beyond each utterance. There is no
        backward.

    Raises:
        ValueError: Shapes do not go together.
    """
    bins = filters.shape[-1]
    if waves.dtype != filters.dtype or waves.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"waves are {waves.dtype}, filters {filters.dtype}: expected both in float32 or float64"
        )
    if waves.dim() != 2 or lengths.shape != waves.shape[:1] or bins != FREQUENCIES:
        raise ValueError(
            f"waves {list(waves.shape)}, lengths {list(lengths.shape)} and filters "
            f"{list(filters.shape)} are not [batch, samples], [batch] and [bins, {FREQUENCIES}]"
        )
    if waves.shape[1] <= WINDOW // 2:
        raise ValueError(f"{waves.shape[1]} samples are no more than half a window of {WINDOW}")
    if runs_plain(waves) and not learns(waves, filters):
        return plain.log_mel(waves, lengths, filters, frames)
    made: Tensor = _forward(waves, lengths, filters, frames)
    return made


@torch.library.custom_op("speechadapt::log_mel", mutates_args=())
def _forward(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    if uses_triton(waves.device, waves.dtype):
        from speechadapt_kernels.logmel import launch

        return launch.log_mel(waves, lengths, filters, frames)
    return plain.log_mel(waves, lengths, filters, frames)


@_forward.register_fake
def _(waves: Tensor, lengths: Tensor, filters: Tensor, frames: int) -> Tensor:
    return filters.new_empty(len(waves), len(filters), frames)
