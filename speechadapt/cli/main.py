"""The ``speechadapt`` command."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from speechadapt.errors import SpeechAdaptError

COMMANDS = {
    "fetch": "bring a base onto this machine",
    "train": "train one adapter on a frozen base",
    "finetune": "train the whole base: a yardstick for adapters, or a small base of your own",
    "transcribe": "recordings to text, subtitles or JSON",
    "classify": "recordings to labels, or to a value",
    "adapters": "what is done with trained adapters: list, average, export, merge, …",
    "doctor": "what this machine has, and which path each operator takes on it",
}
_MODULES = {"finetune": "train"}  # others are called as their command


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="speechadapt",
        description="One frozen speech encoder, many adapters.",
        epilog="speechadapt COMMAND --help has examples.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        # Only the command that is asked for is imported: torch takes seconds.
        if name in argv[:1]:
            module = import_module(f"speechadapt.cli.{_MODULES.get(name, name)}")
            getattr(module, f"configure_{name}")(subparser)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except SpeechAdaptError as error:
        print(f"speechadapt: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except OSError as error:  # of the disk or the network; the sentence is the system's
        place = f"{error.filename}: " if error.filename else ""
        print(f"speechadapt: {place}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("speechadapt: stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
