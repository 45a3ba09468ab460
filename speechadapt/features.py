"""What encoders read, batched and on the device, equal to transformers' extractors: log-mel for
Whisper, filter banks for AST, normalised waves for the wav2vec2 family."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from librosa.filters import mel as mel_filters
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from speechadapt.audio import SAMPLE_RATE
from speechadapt_kernels.logmel import HOP, WINDOW, log_mel

FULL_FRAMES = 3000  # frames of Whisper's own 30 s window


@dataclass(frozen=True)
class Features:
    """A batch of what an encoder reads.

    Attributes:
        values: ``[batch, bins, frames]``, or waves ``[batch, samples]``; zero beyond each
            utterance.
        lengths: Frames or samples of each utterance, ``[batch]``.
        layers: None, or how many layers of the encoder have read them already: ``values`` then are
            states ``[batch, dim, positions]``, and ``lengths`` positions.
    """

    values: Tensor
    lengths: Tensor
    layers: int | None = None

    def __len__(self) -> int:
        return self.values.shape[0]


class LogMel:
    """Computes Whisper's log-mel features (Radford et al. 2022, section 2.2) for a batch of waves.

    Whisper pads every recording to 30 s. Frames of pure silence have a known value, so only frames
    that touch audio are computed; and the short form stops after the audio plus a trailing silence.
    Lengths are even: the encoder halves them.

    Args:
        mel_bins: 80, or 128 for large-v3 and turbo.
        device: Where to compute.
    """

    def __init__(self, mel_bins: int, device: torch.device | str = "cpu"):
        filters = mel_filters(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=mel_bins)
        self.filters = torch.from_numpy(filters).to(device)

    def __call__(self, waves: Sequence[np.ndarray], trailing_silence: float | None) -> Features:
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
        device = self.filters.device
        device_lengths = torch.tensor(lengths, device=device)
        values = log_mel(batch.to(device), device_lengths, self.filters, max(lengths))
        return Features(values, device_lengths)


class Waves:
    """Waves for the wav2vec2 family (Baevski et al. 2020): each normalised, padded with zeros.

    Args:
        normalize: Zero mean and unit variance over each utterance, as the checkpoint asks.
        shortest: Samples that the front end needs to make one position.
        device: Where to put them.
    """

    def __init__(self, normalize: bool, shortest: int, device: torch.device | str = "cpu"):
        self.normalize, self.shortest, self.device = normalize, shortest, device

    def __call__(self, waves: Sequence[np.ndarray], trailing_silence: float) -> Features:
        """Each wave followed by silence.

        Args:
            waves: Mono float32 arrays at 16 kHz, ``[samples]`` each.
            trailing_silence: Seconds of silence after each wave.
        """
        silence = round(trailing_silence * SAMPLE_RATE)
        lengths = [max(len(wave) + silence, self.shortest) for wave in waves]
        values = torch.zeros(len(waves), max(lengths))
        for row, wave, length in zip(values, waves, lengths, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
            if self.normalize:
                mine = row[:length]
                row[:length] = (mine - mine.mean()) / (mine.var(correction=0) + 1e-7).sqrt()
        return Features(values.to(self.device), torch.tensor(lengths, device=self.device))


class FilterBank:
    """Kaldi's log filter bank energies, as AST reads them (Gong et al. 2021, section 2).

    Args:
        bins: Mel bins.
        frames: What every utterance is padded or cut to.
        mean: Subtracted from the energies, padding included; None = they stay as they are.
        std: They are divided by twice this.
        device: Where to compute.
    """

    _FFT = 512
    _PREEMPHASIS = 0.97
    _FLOOR = 1.192092955078125e-07  # the smallest step of float32, as Kaldi has it

    def __init__(
        self,
        bins: int,
        frames: int,
        mean: float | None,
        std: float,
        device: torch.device | str = "cpu",
    ):
        with warnings.catch_warnings():
            # AST's 128 bins are so narrow at the bottom that some hold no frequency at all.
            warnings.simplefilter("ignore")
            filters = mel_filter_bank(
                num_frequency_bins=self._FFT // 2 + 1,
                num_mel_filters=bins,
                min_frequency=20,
                max_frequency=SAMPLE_RATE // 2,
                sampling_rate=SAMPLE_RATE,
                norm=None,
                mel_scale="kaldi",
                triangularize_in_mel_space=True,
            )
        self.filters = torch.from_numpy(filters).to(device, torch.float64)
        self.window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64, device=device)
        self.frames, self.mean, self.std = frames, mean, std

    def __call__(self, waves: Sequence[np.ndarray]) -> Features:
        """Filter banks ``[batch, bins, frames]``; a window never reaches beyond its utterance.

        Args:
            waves: Mono float32 arrays at 16 kHz, ``[samples]`` each.
        """
        limit = WINDOW + (self.frames - 1) * HOP
        waves = [wave[:limit] for wave in waves]
        counts = [max(0, (len(wave) - WINDOW) // HOP + 1) for wave in waves]
        batch = torch.zeros(len(waves), max(WINDOW, *map(len, waves)))
        for row, wave in zip(batch, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        # In float64, as transformers' own: the log of almost nothing magnifies rounding.
        windows = batch.to(self.window).unfold(1, WINDOW, HOP)
        windows = windows - windows.mean(-1, keepdim=True)
        before = torch.cat((windows[..., :1], windows[..., :-1]), -1)
        windows = (windows - self._PREEMPHASIS * before) * self.window
        power = torch.fft.rfft(windows, self._FFT).abs().square()
        energies = (power @ self.filters).clamp(min=self._FLOOR).log().mT.float()
        values = energies.new_zeros(len(waves), energies.shape[1], self.frames)
        for row, energy, count in zip(values, energies, counts, strict=True):
            row[:, :count] = energy[:, :count]
        if self.mean is not None:
            values = (values - self.mean) / (2 * self.std)
        # Padding is part of what AST was trained on, so no frame is marked as padding.
        return Features(values, torch.full((len(waves),), self.frames, device=values.device))
