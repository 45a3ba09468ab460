"""``speechadapt-eval wer``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from speechadapt_eval.cli.scoring import (
    FILES,
    add_files,
    add_options,
    as_json,
    facts,
    interval_line,
    pool,
    remarks,
    score_texts,
    speakers,
)
from speechadapt_eval.statistics.bootstrap import interval_of

EXAMPLES = f"""
examples:
  speechadapt-eval wer data/be/test/text exp/be/decode/text
  speechadapt-eval wer --unit char utts.jsonl utts.jsonl
  speechadapt-eval wer --utt2spk data/test/utt2spk data/test/text hyp.txt
  speechadapt-eval wer be/ref be/hyp --and ro/ref ro/hyp      two sets pooled
{FILES}"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``wer``."""
    add_options(parser)
    add_files(parser, ("REF", "HYP"))
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    refs, hyps = pool([(args.ref, args.hyp), *args.more])
    rate = score_texts(args, refs, hyps)
    interval = interval_of(rate, speakers(args), samples=args.samples, seed=args.seed)
    if args.json:
        return as_json(facts(rate) | {"interval": asdict(interval)})
    return "\n".join([rate.kaldi_lines(), *remarks(rate), interval_line(interval)])
