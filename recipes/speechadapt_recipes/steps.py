"""What the demo and the recipes share: run commands as a user would, read what they wrote."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechadapt.errors import SpeechAdaptError
from speechadapt_eval.report.scored import ScoredRun, read_run


class CommandFailed(SpeechAdaptError):
    """A command of a recipe ended with an error, which it has printed itself."""


def speechadapt(*arguments: str | Path) -> None:
    """Run the ``speechadapt`` command as a user would, and show what is run.

    Raises:
        CommandFailed: It ended with an error.
    """
    _command("speechadapt", "speechadapt.cli.main", *arguments)


def evaluate(run: Path, systems: Mapping[str, str], sets: Mapping[str, Path]) -> ScoredRun:
    """Let systems transcribe test sets and compare them; what an earlier start has done is kept.

    Args:
        run: Its folder, with ``report.html`` in the end.
        systems: Name to what ``speechadapt-eval run --system`` takes; the first is the baseline.
        sets: Name to data directory.
    """
    named = [f"--system={name}={spec}" for name, spec in systems.items()]
    named += [f"--set={name}={path}" for name, path in sets.items()]
    _command("speechadapt-eval", "speechadapt_eval.cli.main", "run", "--out", run, *named)
    _command("speechadapt-eval", "speechadapt_eval.cli.main", "report", run)
    return read_run(run)


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


def _command(name: str, module: str, *arguments: str | Path) -> None:
    words = [str(argument) for argument in arguments]
    print(f"\n$ {name} {shlex.join(words)}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", module, *words], check=False)
    if done.returncode:
        raise CommandFailed(f"`{name} {words[0]}` ended with exit code {done.returncode}")
