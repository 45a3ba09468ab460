"""``cmd:./my_asr {wav}``: a command for each file; what it prints is the text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speechadapt_eval.errors import EvalError
from speechadapt_eval.runs.clips import Clip
from speechadapt_eval.runs.systems.files import file_sha256
from speechadapt_eval.runs.systems.protocol import Closed, Settings

_FIELD = re.compile(r"\{(wav|audio|id|lang)\}")


class Command:
    """A command line; ``{wav}``, ``{audio}``, ``{id}`` and ``{lang}`` are filled in for each clip.

    ``{audio}`` is the file as it is, ``{wav}`` the same as WAV. No shell reads the line, so names
    with spaces are safe; for pipes write ``sh -c '… "$1" …' - {wav}``.

    Args:
        argument: The command line, quoted as for a shell.

    Raises:
        EvalError: It cannot be split, has no place for the sound, or the program is not there.
    """

    fills_lang = True

    def __init__(self, argument: str):
        try:
            self._words = shlex.split(argument)
        except ValueError as error:
            raise EvalError(f"cmd:{argument}: {error}; quote it as for a shell") from error
        if not self._words or not {"wav", "audio"} & set(_FIELD.findall(argument)):
            raise EvalError(
                f"cmd:{argument}: has neither {{wav}} nor {{audio}}, so no sound would reach it"
            )
        program = shutil.which(self._words[0])
        if program is None:
            raise EvalError(
                f"cmd:{argument}: there is no program {self._words[0]!r}, or it is not executable; "
                "check the path"
            )
        self._program = program

    def fingerprint(self) -> Mapping[str, Any]:
        """The words, and checksums of those that are files: the program, a script, a model."""
        files = {word: Path(word) for word in self._words if Path(word).is_file()}
        files[self._words[0]] = Path(self._program)
        return {
            "words": self._words,
            "files": {word: file_sha256(path) for word, path in files.items()},
        }

    def open(self, settings: Settings) -> OpenCommand:
        """Nothing to load."""
        return OpenCommand(self._words, settings.timeout)


class OpenCommand(Closed):
    """A command that can be run."""

    concurrent = True
    warmup = 0  # every call is a new process

    def __init__(self, words: list[str], timeout: float):
        self._words, self._timeout = words, timeout

    def transcribe(self, clip: Clip) -> str:
        """What the command prints, as UTF-8.

        Raises:
            RuntimeError: It failed, took too long, or printed something else.
        """
        with ExitStack() as stack:
            values = {"id": clip.id, "lang": clip.lang}
            for name, file in (("wav", clip.wav), ("audio", clip.file)):
                if any(f"{{{name}}}" in word for word in self._words):
                    values[name] = str(stack.enter_context(file()))
            if values["lang"] is None and any("{lang}" in word for word in self._words):
                raise RuntimeError("the language is not known, and the command wants {lang}")
            words = [_FIELD.sub(lambda m: str(values[m[1]]), word) for word in self._words]
            return self._run(words)

    def _run(self, words: list[str]) -> str:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that its children can be ended with it
        )
        try:
            output, said = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the command took more than {self._timeout:g} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise RuntimeError(
                f"the command ended with exit code {process.returncode}"
                + (f": {lines[-1]}" if lines else "")
            )
        try:
            return output.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RuntimeError(f"what the command printed is not UTF-8 ({error})") from error
