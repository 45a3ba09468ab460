"""Metrics, statistics and reports for any system that transcribes.

Texts and numbers go in, tables and pages come out; nothing here knows a model. Example:

    from speechadapt_eval import interval_of, score

    rate = score({"utt1": "Добры дзень!"}, {"utt1": "добры день"})
    print(rate.kaldi_line())  # %WER 50.00 [ 1 / 2, 0 ins, 0 del, 1 sub ]
    print(interval_of(rate))
"""

from speechadapt_eval.errors import EvalError
from speechadapt_eval.statistics.bootstrap import (
    Interval,
    Paired,
    confidence_interval,
    interval_of,
    paired_difference,
)
from speechadapt_eval.transcripts.normalize import normalizer
from speechadapt_eval.transcripts.wer import ErrorRate, Op, Utterance, align, score

__all__ = [
    "ErrorRate",
    "EvalError",
    "Interval",
    "Op",
    "Paired",
    "Utterance",
    "align",
    "confidence_interval",
    "interval_of",
    "normalizer",
    "paired_difference",
    "score",
]
