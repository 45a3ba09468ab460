"""Log-mel features, batched and on the device, equal to transformers' Whisper extractor.

Whisper pads every recording to 30 s. Frames of pure silence have a known value, so only frames that
touch audio are computed; and the short form stops after the audio plus a trailing silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from librosa.filters import mel as mel_filters
from torch import Tensor

from speechadapt.audio import SAMPLE_RATE

WINDOW = 400  # samples of one analysis window: 25 ms
HOP = 160  # samples between frames: 10 ms
FULL_FRAMES = 3000  # frames of Whisper's own 30 s window
_SILENCE = -10.0  # log10 of the floor 1e-10: what a frame without any sound gives


@dataclass(frozen=True)
class Mel:
    """A batch of log-mel features.

    Attributes:
        values: ``[batch, mel_bins, frames]``, zero beyond each utterance's own frames.
        lengths: Frames of each utterance, ``[batch]``, always even (the encoder halves them).
    """

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return self.values.shape[0]


class LogMel:
    """Computes Whisper's log-mel features (Radford et al. 2022, section 2.2) for a batch of waves.

    Args:
        mel_bins: 80, or 128 for large-v3 and turbo.
        device: Where to compute.
    """

    def __init__(self, mel_bins: int, device: torch.device | str = "cpu"):
        filters = mel_filters(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=mel_bins)
        self.filters = torch.from_numpy(filters).to(device)
        self.window = torch.hann_window(WINDOW, device=device)

    def __call__(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Mel:
        """Features of each wave followed by silence.

        Args:
            waves: Mono float32 arrays at 16 kHz, ``[samples]`` each; cut at 30 s.
            trailing_silence: Seconds of silence after each wave; None = fill up to 30 s.
        """
        limit = FULL_FRAMES * HOP
        waves = [wave[:limit] for wave in waves]
        if trailing_silence is None:
            lengths = [FULL_FRAMES] * len(waves)
        else:
            silence = round(trailing_silence * SAMPLE_RATE)
            lengths = [
                min(FULL_FRAMES, 2 * math.ceil((len(wave) + silence) / (2 * HOP))) for wave in waves
            ]
            lengths = [max(2, length) for length in lengths]
        # Two windows more than the longest wave: the reflection at the end then mirrors silence, so
        # neighbours in the batch change nothing. A full 30 s mirrors its own end, as Whisper does.
        samples = min(limit, HOP * math.ceil((max(map(len, waves)) + 2 * WINDOW) / HOP))
        batch = torch.zeros(len(waves), samples)
        for row, wave in zip(batch, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        spectrum = torch.stft(
            batch.to(self.window.device), WINDOW, HOP, window=self.window, return_complex=True
        )[..., :-1]
        log_mel = (self.filters @ spectrum.abs().square()).clamp(min=1e-10).log10()

        frames = max(lengths)
        values = log_mel.new_full((len(waves), log_mel.shape[1], frames), _SILENCE)
        computed = min(frames, log_mel.shape[2])
        values[..., :computed] = log_mel[..., :computed]
        device_lengths = torch.tensor(lengths, device=values.device)
        beyond = torch.arange(frames, device=values.device) >= device_lengths[:, None, None]
        values.masked_fill_(beyond, _SILENCE)
        loudest = values.amax(dim=(1, 2), keepdim=True)
        values = (torch.maximum(values, loudest - 8.0) + 4.0) / 4.0
        return Mel(values.masked_fill_(beyond, 0.0), device_lengths)
