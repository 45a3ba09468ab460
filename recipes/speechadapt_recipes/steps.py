"""What the demo and the recipes share: run a command once, score what it wrote."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechadapt.data import read_data_dir
from speechadapt.errors import SpeechAdaptError
from speechadapt.files import write_json
from speechadapt_eval.io import read_kaldi_text
from speechadapt_eval.transcripts.wer import ErrorRate, score


class CommandFailed(SpeechAdaptError):
    """A command of a recipe ended with an error, which it has printed itself."""


def speechadapt(*arguments: str | Path) -> None:
    """Run the ``speechadapt`` command as a user would, and show what is run.

    Raises:
        CommandFailed: It ended with an error.
    """
    words = [str(argument) for argument in arguments]
    print(f"\n$ speechadapt {shlex.join(words)}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "speechadapt.cli.main", *words], check=False)
    if done.returncode:
        raise CommandFailed(f"`speechadapt {words[0]}` ended with exit code {done.returncode}")


@dataclass(frozen=True)
class Transcribed:
    """A test set transcribed by one system.

    Attributes:
        text: Kaldi ``text`` file of the hypotheses.
        seconds: Wall time of the command, loading included.
    """

    text: Path
    seconds: float

    def rates(self, data: Path) -> tuple[ErrorRate, ErrorRate]:
        """Word and character errors against the references of a data directory."""
        references = {u.id: u.text or "" for u in read_data_dir(data)}
        hypotheses = read_kaldi_text(self.text)
        return score(references, hypotheses), score(references, hypotheses, unit="char")


def transcribe(data: Path, text: Path, *arguments: str | Path) -> Transcribed:
    """Transcribe a data directory, unless an earlier start has done it."""
    timing = text.with_suffix(".json")
    if not (text.is_file() and timing.is_file()):
        text.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        speechadapt("transcribe", data, "--format", "kaldi", "--out", text, *arguments)
        write_json(timing, {"seconds": round(time.monotonic() - started, 1)})
    return Transcribed(text, json.loads(timing.read_text(encoding="utf-8"))["seconds"])


def training_curves(
    run: Path,
) -> tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]]:
    """``(step, loss)`` and ``(step, development WER)`` of a training run's log."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return (
        [(row["step"], row["loss"]) for row in rows if "loss" in row],
        [(row["step"], row["dev_wer"]) for row in rows if "dev_wer" in row],
    )
