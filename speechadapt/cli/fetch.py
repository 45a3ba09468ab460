"""``speechadapt fetch``: bring a base onto this machine before it is needed."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "fetch",
        help="bring a base onto this machine",
        description="Load a base once, so that later commands find it without a network.",
        epilog="example:\n  speechadapt fetch openai/whisper-base",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", help="hub id or folder")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from speechadapt.backbones.checkpoints import load_whisper

    checkpoint = load_whisper(args.base)
    size = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    print(f"{checkpoint.name}: {size:,} parameters, from {checkpoint.source}")
    return 0
