"""The new head of an adapter, from options and data."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

from speechadapt.backbones.ast import ASTBackbone
from speechadapt.backbones.base import Backbone
from speechadapt.cli.datasets import Data
from speechadapt.cli.teachers import Teacher
from speechadapt.data.labels import number
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierConfig, ClassifierHead
from speechadapt.heads.ctc import CtcConfig, CtcHead, pieces_of, vocabulary_of
from speechadapt.heads.head import Head
from speechadapt.heads.regressor import RegressorConfig, RegressorHead


def add_heads(parser: argparse._ActionsContainer) -> None:
    """The options about the new head of an adapter."""
    add = parser.add_argument
    add(
        "--vocabulary",
        choices=("characters", "bpe"),
        help="ctc: of the new head, made from the data (default characters)",
    )
    add("--vocabulary-size", type=int, metavar="N", help="with bpe: tokens (default 256)")
    add(
        "--layer-weights",
        action="store_true",
        help="the new head reads a weighted sum of all layers, not the last alone (SUPERB)",
    )


def new_head(
    args: argparse.Namespace,
    name: str,
    backbone: Backbone,
    data: Data,
    seed: int,
    teacher: Teacher | None,
) -> Head | None:
    """The head that an objective trains; None where it needs none.

    Args:
        args: Of the command.
        name: Of the objective.
        backbone: Whose states it reads.
        data: The training set: its characters, labels or values.
        seed: Of what is random in it.
        teacher: Whose CTC vocabulary is taken.

    Raises:
        ConfigError: The options or the data do not make one.
        DataError: A value is no number.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = backbone.depth + 1 if args.layer_weights else 0
    if name == "ctc":
        vocabulary = replace(_vocabulary(args, data, teacher), layers=layers)
        head = CtcHead.fresh(vocabulary, backbone.width, generator)
        if isinstance(backbone.head, CtcHead) and not layers:
            head.start_from(backbone.head)
        return head
    pooling, epsilon = "mean", 1e-5
    if isinstance(backbone, ASTBackbone):  # as AST's own classifier, so that it can be merged
        pooling, epsilon = "summary", backbone.model.config.layer_norm_eps
    if name == "classify":
        labels = tuple(sorted({label for row in data.labels.values() for label in row}))
        if len(labels) < 2 and not args.multi_label:
            raise ConfigError(
                f"--labels {args.labels}: every utterance has the label "
                f"{', '.join(labels)!r}, so there is nothing to tell apart"
            )
        config = ClassifierConfig(labels, args.multi_label, pooling, epsilon, layers)
        return ClassifierHead.fresh(config, backbone.width, generator)
    if name == "regress":
        values = [number(row, f"utterance {key}") for key, row in data.labels.items()]
        scale = statistics.pstdev(values) or 1.0
        regressor = RegressorConfig(
            args.labels.removeprefix("utt2"), statistics.fmean(values), scale, pooling, epsilon,
            layers,
        )  # fmt: skip
        return RegressorHead.fresh(regressor, backbone.width, generator)
    return None


def _vocabulary(args: argparse.Namespace, data: Data, teacher: Teacher | None) -> CtcConfig:
    if args.vocabulary_size is not None and args.vocabulary != "bpe":
        raise ConfigError("--vocabulary-size: only --vocabulary bpe has a size to choose")
    if teacher is not None:
        if args.vocabulary:
            raise ConfigError("--vocabulary: with --teacher the vocabulary is the teacher's")
        return teacher.vocabulary
    texts = (utterance.text or "" for utterance in data.utterances)
    if args.vocabulary == "bpe":
        return pieces_of(texts, 256 if args.vocabulary_size is None else args.vocabulary_size)
    return vocabulary_of(texts)
