"""``python:module:function``: any callable that takes a path, or samples and their rate."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip
from speechadapt_eval.runs.systems.files import file_sha256
from speechadapt_eval.runs.systems.protocol import Answer, Closed, Settings

RATE = 16_000


class Function:
    """A callable of a module in the current folder or anywhere that Python finds it.

    With one parameter it gets the path of the sound file, with two the samples (float32, mono,
    16 kHz) and the rate; a parameter called ``lang`` gets the language. It returns the text, or a
    dictionary with ``text`` and further fields. A class is made once, which counts as loading, and
    what it makes is called.

    Args:
        argument: ``module:name``.

    Raises:
        EvalError: It is not of this form, or there is no such module.
    """

    def __init__(self, argument: str):
        self._module, _, self._name = argument.partition(":")
        if not self._module or not self._name:
            raise EvalError(f"python:{argument}: write python:module:function")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        found = importlib.util.find_spec(self._module)
        if found is None:
            raise EvalError(f"python:{argument}: there is no module {self._module!r} to import")
        self._source = found.origin

    def fingerprint(self) -> Mapping[str, Any]:
        """The name and the module's source; what the module imports is not looked at."""
        source = self._source and Path(self._source).is_file() and file_sha256(Path(self._source))
        return {"module": self._module, "name": self._name, "source": source or None}

    def open(self, settings: Settings) -> OpenFunction:
        """Import the module.

        Raises:
            EvalError: It has no such callable.
        """
        function = getattr(importlib.import_module(self._module), self._name, None)
        if inspect.isclass(function):
            function = function()
        if not callable(function):
            raise EvalError(f"python:{self._module}:{self._name} is not there or no function")
        return OpenFunction(function)


class OpenFunction(Closed):
    """A callable that is ready."""

    def __init__(self, function: Callable[..., Answer]):
        self._function = function
        parameters = inspect.signature(function).parameters.values()
        self._wants_lang = any(p.name == "lang" for p in parameters)
        wanted = [
            p
            for p in parameters
            if p.default is p.empty
            and p.name != "lang"
            and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(wanted) not in (1, 2):
            raise EvalError(
                f"{function!r} takes {len(wanted)} parameters: one (path) or two (samples, rate)"
            )
        self._wants_samples = len(wanted) == 2

    def transcribe(self, clip: Clip) -> Answer:
        """What the function returns."""
        more = {"lang": clip.lang} if self._wants_lang else {}
        if self._wants_samples:
            return self._function(clip.samples(RATE), RATE, **more)
        with clip.file() as path:
            return self._function(str(path), **more)
