"""``faster-whisper:DIR?beam_size=1``: a CTranslate2 folder, through the package faster-whisper."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip
from speechadapt_eval.runs.systems.files import folder_sha256, split_settings
from speechadapt_eval.runs.systems.protocol import Answer, Settings

# Settings of the model; all others are those of its ``transcribe``.
_OF_THE_MODEL = ("device", "device_index", "compute_type", "cpu_threads", "num_workers")


class FasterWhisper:
    """A Whisper that CTranslate2 runs. Settings that are not given are the package's own (beam 5).

    Args:
        argument: Folder with ``model.bin``, and settings behind ``?``.

    Raises:
        EvalError: The folder holds no model, or the package is not installed.
    """

    def __init__(self, argument: str):
        folder, self._settings = split_settings(argument)
        self._folder = Path(folder).expanduser()
        if not (self._folder / "model.bin").is_file():
            raise EvalError(
                f"faster-whisper:{argument}: {self._folder} has no model.bin, so it is no "
                "CTranslate2 folder; nothing is downloaded here"
            )
        try:
            self._versions = {name: version(name) for name in ("faster-whisper", "ctranslate2")}
        except PackageNotFoundError as error:
            raise EvalError(
                f"faster-whisper:{argument}: {error.name} is not installed: "
                "pip install 'speechadapt[faster-whisper]'"
            ) from error

    def fingerprint(self) -> Mapping[str, Any]:
        """Versions, settings and checksum of the folder."""
        model = folder_sha256(self._folder)
        return {"versions": self._versions, "settings": self._settings, "model": model}

    def open(self, settings: Settings) -> OpenFasterWhisper:
        """Load the model."""
        package = importlib.import_module("faster_whisper")
        # Its fallback samples. Threads take the seed when they start, so it is set before.
        importlib.import_module("ctranslate2").set_random_seed(0)
        given = self._settings
        of_model = {name: value for name, value in given.items() if name in _OF_THE_MODEL}
        with _complete(self._folder) as folder:
            model = package.WhisperModel(str(folder), **of_model)
        rest = {name: value for name, value in given.items() if name not in _OF_THE_MODEL}
        return OpenFasterWhisper(model, rest, given.get("cpu_threads") or None)


@contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """The folder, with the list of tokens that CTranslate2 wants and some distributors leave out:
    ``tokenizer.json`` has them too."""
    tokenizer = folder / "tokenizer.json"
    if list(folder.glob("vocabulary.*")) or not tokenizer.is_file():
        yield folder
        return
    described = json.loads(tokenizer.read_bytes())
    ids = dict(described["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in described["added_tokens"]}
    with tempfile.TemporaryDirectory(prefix="speechadapt-eval-") as name:
        complete = Path(name)
        for path in folder.iterdir():
            (complete / path.name).symlink_to(path.absolute())
        tokens = sorted(ids, key=lambda token: ids[token])
        (complete / "vocabulary.json").write_text(json.dumps(tokens), encoding="utf-8")
        yield complete


class OpenFasterWhisper:
    """A model in memory."""

    def __init__(self, model: Any, settings: dict[str, Any], threads: int | None):
        self.facts: Mapping[str, Any] = {"threads": threads}
        self._model, self._settings = model, settings

    def transcribe(self, clip: Clip) -> Answer:
        """One clip, in its language where that is known."""
        segments, info = self._model.transcribe(
            clip.samples(), **({"language": clip.lang} | self._settings)
        )
        text = "".join(segment.text for segment in segments)
        return {"text": text, "language_used": info.language}

    def close(self) -> None:
        """Free the model."""
        self._model = None
