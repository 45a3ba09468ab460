"""What the actions of ``speechadapt adapters`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speechadapt.adapters.adapter import Adapter
from speechadapt.files import check_target
from speechadapt.store import save_adapter


def add_action(
    actions: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    examples: str,
) -> argparse.ArgumentParser:
    """The parser of one more action, with examples below its help."""
    made: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    made.epilog, made.formatter_class = examples, argparse.RawDescriptionHelpFormatter
    made.set_defaults(run=run)
    return made


def add_one(action: argparse.ArgumentParser) -> None:
    """The folder of one adapter."""
    action.add_argument("adapter", help="folder of the adapter")


def add_base(action: argparse.ArgumentParser) -> None:
    """The frozen base."""
    action.add_argument("--base", default="openai/whisper-base", help="hub id or folder")


def add_out(action: argparse.ArgumentParser, text: str, *known: str) -> None:
    """Where to write; what is not ours to replace is refused before anything is loaded.

    Args:
        action: Which writes.
        text: Of the help.
        known: What an older folder may hold, as :func:`speechadapt.files.check_target` takes it.
    """
    action.add_argument("--out", required=True, type=Path, help=text)
    action.set_defaults(run=partial(_checked, action.get_default("run"), known))


def _checked(
    run: Callable[[argparse.Namespace], int], known: Sequence[str], args: argparse.Namespace
) -> int:
    check_target(args.out, *known)
    return run(args)


def saved(adapter: Adapter, out: Path, what: str) -> int:
    """Write an adapter, and say so."""
    save_adapter(adapter, out)
    print(f"adapter {adapter.name}: {what}, in {out}")
    return 0
