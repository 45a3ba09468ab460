"""Options that many commands have."""

from __future__ import annotations

import argparse


def add_bootstrap(parser: argparse.ArgumentParser, samples: int = 10_000) -> None:
    """How intervals are resampled: ``args.samples`` and ``args.seed``."""
    parser.add_argument(
        "--samples",
        type=int,
        default=samples,
        metavar="N",
        help=f"bootstrap replicates ({samples})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """``args.json``: output for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
