"""The ``speechadapt`` command."""

from __future__ import annotations

import argparse
import sys

from speechadapt.cli import fetch, train, transcribe
from speechadapt.errors import SpeechAdaptError


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="speechadapt", description="One frozen speech encoder, many adapters."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    fetch.add_parser(subparsers)
    train.add_parsers(subparsers)
    transcribe.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except SpeechAdaptError as error:
        print(f"speechadapt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("speechadapt: stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
