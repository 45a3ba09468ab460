"""speechadapt: one frozen speech encoder, many adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechadapt.errors import SpeechAdaptError
    from speechadapt.model import SpeechModel, load

__all__ = ["SpeechAdaptError", "SpeechModel", "load"]
__version__ = "0.1.0"

_HOMES = {
    "SpeechAdaptError": "speechadapt.errors",
    "SpeechModel": "speechadapt.model",
    "load": "speechadapt.model",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `speechadapt --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'speechadapt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
