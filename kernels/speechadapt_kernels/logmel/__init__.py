"""Whisper's log-mel features: framing, spectrum, mel filters, log and clamp of a batch of waves.

``operator`` is one fused operator: two Triton kernels on a GPU (``kernels``), torch's FFT elsewhere
(``plain``). ``naive`` is the definition both are tested against.
"""

from speechadapt_kernels.logmel.operator import log_mel
from speechadapt_kernels.logmel.settings import HOP, SILENCE, WINDOW

__all__ = ["HOP", "SILENCE", "WINDOW", "log_mel"]
