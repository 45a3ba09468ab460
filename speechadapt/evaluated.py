"""Our own system for ``speechadapt-eval run``: ``speechadapt:BASE[:ADAPTER…][?SETTINGS]``.

An entry point names it, so the harness needs no import of ours, and this module none of the
harness: it follows what ``speechadapt_eval.runs.systems.protocol`` asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

import numpy as np

from speechadapt.errors import ConfigError

_SETTINGS = ("route", "beam", "context", "device", "batch_seconds")


class Clip(Protocol):
    """What the harness gives us."""

    id: str
    lang: str | None

    def samples(self, rate: int) -> np.ndarray:
        """Mono float32 ``[samples]``."""


class System:
    """A base and the adapters that ride on it, not loaded yet.

    Settings, behind ``?`` and joined by ``&``: ``route`` (default: the only adapter, else none),
    ``beam`` (1), ``context`` (auto, full, or seconds of silence), ``device`` (cpu),
    ``batch_seconds`` (60). Languages are those of the clips, else the adapter's, else detected.

    Args:
        argument: ``BASE``, ``BASE:ADAPTER``, ``BASE:ADAPTER:ADAPTER?route=a+b``.

    Raises:
        ConfigError: A setting is unknown or no number.
    """

    def __init__(self, argument: str):
        names, _, query = argument.partition("?")
        self._base, *self._adapters = names.split(":")
        self._settings = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := sorted(set(self._settings) - set(_SETTINGS)):
            raise ConfigError(
                f"speechadapt:{argument}: unknown setting {unknown[0]!r}; known are "
                f"{', '.join(_SETTINGS)}"
            )
        self._beam = int(self._number("beam", 1))
        self._batch_seconds = self._number("batch_seconds", 60.0)
        self._context: float | str | None = self._settings.get("context", "auto")
        if self._context == "full":
            self._context = None
        elif self._context != "auto":
            self._context = self._number("context", 0.0)

    def fingerprint(self) -> Mapping[str, Any]:
        """Our sources, the libraries' versions, the settings, and the files that are folders.

        A base on the hub is known by its name alone.
        """
        sources = Path(__file__).parent
        return {
            "sources": _checksum(sorted(sources.rglob("*.py")), sources),
            "versions": {name: version(name) for name in ("torch", "transformers")},
            "settings": self._settings,
            "base": _folder(Path(self._base)) or self._base,
            "adapters": [_adapter(name) for name in self._adapters],
        }

    def open(self, settings: object) -> OpenSystem:
        """Load base and adapters.

        Raises:
            SpeechAdaptError: They cannot be had, or do not fit.
        """
        from speechadapt.decoding.options import DecodeOptions
        from speechadapt.model import load
        from speechadapt.route import parse_route

        options = DecodeOptions(beam_size=self._beam)
        model = load(self._base, self._adapters, device=self._settings.get("device", "cpu"))
        names = [adapter.name for adapter in model.bank]
        text = self._settings.get("route") or (names[0] if len(names) == 1 else "none")
        route = parse_route(text)
        if len(names) > 1 and "route" not in self._settings:
            raise ConfigError(f"several adapters: say which with ?route=, of {', '.join(names)}")
        model.bank.call([route])
        silence = model.trailing_silence([route]) if self._context == "auto" else self._context
        return OpenSystem(model, route, text, options, silence, self._batch_seconds)

    def _number(self, name: str, default: float) -> float:
        text = self._settings.get(name, str(default))
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"speechadapt: {name}={text}: give a number") from None


class OpenSystem:
    """Base and adapters in memory."""

    def __init__(
        self,
        model: Any,
        route: Any,
        adapter: str,
        options: Any,
        silence: Any,
        batch_seconds: float,
    ):
        import torch

        self._model, self._route, self._adapter = model, route, adapter
        self._options, self._silence, self._batch_seconds = options, silence, batch_seconds
        trained = sum(t.numel() for each in model.bank for _, t in each.named_tensors())
        base = sum(parameter.numel() for parameter in model.backbone.model.parameters())
        self.facts: Mapping[str, Any] = {
            "parameters": base + trained,
            "trainable": trained,
            "threads": torch.get_num_threads(),
        }

    def transcribe(self, clip: Clip) -> Mapping[str, Any]:
        """One clip by itself."""
        (answer,) = self.transcribe_batch([clip])
        return answer

    def transcribe_batch(self, clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
        """Clips in batches of similar length.

        Raises:
            SpeechAdaptError: The model does not know a language.
        """
        from speechadapt.decoding.options import language_code
        from speechadapt.decoding.transcriber import transcribe

        own = {str(i): c.lang or self._model.language(self._route) for i, c in enumerate(clips)}
        found = transcribe(
            self._model,
            _sound(clips),
            route=self._route,
            options=self._options,
            trailing_silence=self._silence,
            languages={name: language_code(lang) for name, lang in own.items() if lang},
            batch_seconds=self._batch_seconds,
            progress=False,
        )
        return [{"text": transcript.text, "adapter": self._adapter} for transcript in found]

    def close(self) -> None:
        """Free the memory."""
        self._model = None


def _sound(clips: Sequence[Clip]) -> Iterator[tuple[str, np.ndarray]]:
    for index, clip in enumerate(clips):
        yield str(index), clip.samples(16_000)


def _adapter(name: str) -> str:
    """Checksum of an adapter's files; its name if there are none, which loading it then says."""
    if local := _folder(Path(name).expanduser()):
        return local
    from speechadapt.sharing import find_adapter  # imports torch, which a cached run does without

    return _folder(find_adapter(name)) or name


def _folder(path: Path) -> str | None:
    """Checksum of the files of a folder; None if it is none."""
    if not path.is_dir():
        return None
    return _checksum(sorted(p for p in path.rglob("*") if p.is_file()), path)


def _checksum(files: Sequence[Path], root: Path) -> str:
    total = hashlib.sha256()
    for path in files:
        content = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                content.update(block)
        total.update(f"{path.relative_to(root).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()
