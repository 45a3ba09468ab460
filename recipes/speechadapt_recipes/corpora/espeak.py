"""espeak-ng as a source of synthetic speech: formants and rules, no recorded voice.

The library comes in a wheel (``espeakng-loader``, Linux on x86-64) and needs nothing else; Debian's
own is built against the sound servers' libraries, twenty packages more. It is GPL-3; what it speaks
is as free as the text.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy as np

from speechadapt.audio import SAMPLE_RATE, resample
from speechadapt.errors import AudioError
from speechadapt.fetch import Archive
from speechadapt_recipes.corpora.common import unpacked

ARCHIVE = Archive(
    name="espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
    kind="wheel",
    package="espeakng-loader",
    version="0.2.4",
    licence="GPL-3, espeak-ng 1.52.0",
    size=10_078_484,
)
VOICES = ("f1", "f2", "f3", "f5", "m1", "m3", "m5", "m7")

# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_CHARACTERS, _UTF8 = 1, 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Speaker:
    """Speaks texts; calls from several threads wait for each other.

    Args:
        library: espeak-ng's shared library, or what behaves like it.
        data: The folder that holds ``espeak-ng-data``.

    Raises:
        AudioError: The library does not find its data.
    """

    def __init__(self, library: Any, data: Path):
        self._library, self._chunks = library, list[np.ndarray]()
        self._lock = threading.Lock()
        # Kept here: the library goes on calling it, and Python must not collect it.
        self._callback = _CALLBACK(self._receive)
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT)
        if rate <= 0:
            raise AudioError(
                f"{data}: espeak-ng cannot read its voices there; unpack the archive again, into a "
                "folder whose path has fewer than 150 characters"
            )
        self._rate = rate
        library.espeak_SetSynthCallback(self._callback)

    def say(
        self, text: str, language: str, voice: str, words_per_minute: int, pitch: int
    ) -> np.ndarray:
        """Samples ``[samples]`` of a text: float32 in [-1, 1], 16 kHz mono.

        Args:
            text: What to say.
            language: Code such as ``be``.
            voice: One of :data:`VOICES`.
            words_per_minute: 80 to 450.
            pitch: 0 to 99; 50 is the voice's own.

        Raises:
            AudioError: espeak-ng has no such voice, or said nothing.
        """
        encoded = text.encode()
        with self._lock:
            self._chunks.clear()
            failed = self._library.espeak_SetVoiceByName(f"{language}+{voice}".encode())
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            self._library.espeak_SetParameter(_PITCH, pitch, 0)
            failed = failed or self._library.espeak_Synth(
                encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None
            )
            samples = np.concatenate([np.zeros(0, np.int16), *self._chunks])
        if failed or not len(samples):
            raise AudioError(f"espeak-ng cannot say {text!r} with the voice {language}+{voice}")
        return resample(samples.astype(np.float32) / 32768, self._rate, SAMPLE_RATE)

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if count and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def load_speaker(downloads: Path, archives: Path | None = None) -> Speaker:
    """espeak-ng, fetched and unpacked if it is not there yet.

    Raises:
        FetchError: The archive cannot be had.
        AudioError: The library does not run on this system.
    """
    # Not the wheel's long name: the library wants a short path.
    package = unpacked(ARCHIVE, downloads, archives, f"espeakng_loader-{ARCHIVE.version}")
    folder = (package / "espeakng_loader").resolve()
    path = folder / "libespeak-ng.so"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise AudioError(
            f"{path}: does not load ({error}); it is built for Linux on x86-64: prepare the data "
            "there, or do without synthetic speech"
        ) from None
    return Speaker(library, folder)
