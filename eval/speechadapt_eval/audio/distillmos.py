"""DistillMOS: a second opinion on 16 kHz speech, by another network.

Stahl and Gamper, "Distillation and pruning for scalable self-supervised representation-based
speech quality assessment", ICASSP 2025, arXiv:2502.05356; package ``distillmos`` of Microsoft.

torch and the package are imported, by name, when the network is loaded: all else does without.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from types import ModuleType
from typing import Any

import numpy as np

from speechadapt_eval.errors import EvalError

WINDOW = 122_880  # samples: 7.68 s
_INSTALL = "pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0"


class Distillmos:
    """The network, loaded.

    Raises:
        EvalError: torch, ``distillmos`` or ``xls-r-sqa`` is not installed.
    """

    def __init__(self) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
            with _torchaudio_unneeded():
                package = importlib.import_module("distillmos")
        except (ImportError, OSError) as error:
            raise EvalError(
                f"DistillMOS cannot be loaded ({error}): it needs torch, and {_INSTALL}"
            ) from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
            self._model = package.ConvTransformerSQAModel().eval()

    def __call__(self, samples: np.ndarray) -> float:
        """Score a clip, 1 to 5: the mean over windows of 7.68 s, at most a second apart.

        A shorter clip is repeated to fill the window. The package itself would fill it with
        zeros, which cost clips of 1 to 4 s up to 0.7 (docs/evaluation/mos.md).

        Args:
            samples: ``[samples]``, 16 kHz, at least one.
        """
        tiled = np.resize(samples, max(len(samples), WINDOW)).astype(np.float32)
        with self._torch.inference_mode():
            return float(self._model(self._torch.from_numpy(tiled)[None]))


@contextlib.contextmanager
def _torchaudio_unneeded() -> Any:
    """Let ``distillmos`` be imported without torchaudio, which only its own command uses.

    torchaudio of the package index cannot be imported beside torch for the CPU.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]
