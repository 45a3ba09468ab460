"""``speechadapt fetch``: bring a base onto this machine before it is needed."""

from __future__ import annotations

import argparse

from speechadapt.backbones.loading import load_backbone


def configure_fetch(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Load a base once, so that later commands find it without a network."
    parser.epilog = "example:\n  speechadapt fetch openai/whisper-base"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", help="hub id or folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry the command out.

    Raises:
        CheckpointError: The base cannot be had or is damaged.
    """
    backbone = load_backbone(args.base)
    print(f"{backbone.name}: {backbone.parameter_count:,} parameters")
    return 0
