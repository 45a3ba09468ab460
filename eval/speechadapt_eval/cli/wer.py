"""``speechadapt-eval wer``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from speechadapt_eval.cli.scoring import (
    FILES,
    add_files,
    add_options,
    facts,
    interval_line,
    read_sets,
    remarks,
    score_texts,
)
from speechadapt_eval.outputs import as_json
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
    sets = read_sets(args, [(args.ref, args.hyp), *args.more])
    refs, hyps = sets.texts
    rate = score_texts(args, refs, hyps)
    interval = interval_of(rate, sets.speakers, samples=args.samples, seed=args.seed)
    if args.json:
        return as_json(facts(rate) | {"interval": asdict(interval)})
    return "\n".join([rate.kaldi_lines(), *remarks(rate), interval_line(interval)])
