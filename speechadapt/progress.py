"""Progress bars: lively on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

_LOG_SECONDS = 30.0


def progress(*args: Any, **settings: Any) -> tqdm[Any]:
    """A tqdm bar; where standard error is no terminal, it is drawn every half minute at most."""
    if not sys.stderr.isatty():
        settings = {"mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS, **settings}
    return tqdm(*args, **settings)


def say(text: str, file: TextIO) -> None:
    """Write ``text`` to a stream at once, and not into the middle of a bar that is being drawn."""
    tqdm.write(text, file=file, end="")
    file.flush()
