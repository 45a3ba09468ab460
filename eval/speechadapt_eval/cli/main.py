"""The ``speechadapt-eval`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from speechadapt_eval.errors import EvalError

# Each is a module beside this one, with ``EXAMPLES`` and ``configure(parser)``, which sets ``run``:
# a function of the parsed options that returns what is printed.
COMMANDS = {
    "run": "let systems transcribe test sets, and compare them",
    "report": "one page of a run, or of two compared",
    "wer": "error rate of one system, in Kaldi's lines",
    "compare": "difference of two or more systems, paired",
    "hallucination": "text that nobody spoke: output on silence, insertion runs, loops",
    "mos": "predicted opinion scores of recordings (DNSMOS)",
    "audio": "recordings against their clean references (SI-SDR, STOI, PESQ, ViSQOL)",
    "agreement": "predicted against given opinions (LCC, SRCC, Kendall's tau, MSE)",
    "labels": "accuracy, F1, average precision and calibration of labels",
    "ratings": "mean opinion scores of a listening test",
    "listening-page": "make the page of a listening test",
    "latency": "delays and stability of a streaming system",
    "matrix": "every adapter on every test set, with the regret of not knowing which",
    "routing": "which adapters a combiner chooses: top-1, entropy, confusion, regret",
    "preserve": "proof that adapting left the base as it was",
    "parameters": "size of adapters beside their base",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv[0] if argv else "").parse_args(argv)
    try:
        print(args.run(args), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except EvalError as error:
        print(f"speechadapt-eval: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser(asked: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speechadapt-eval",
        description="Figures with confidence intervals, for any system.",
        epilog="speechadapt-eval COMMAND --help has examples.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, title in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=title,
            description=f"{title[0].upper()}{title[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == asked:  # only this one is imported: some take a second
            module = import_module(f"speechadapt_eval.cli.{name.replace('-', '_')}")
            command.epilog = module.EXAMPLES
            module.configure(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
