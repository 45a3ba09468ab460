"""From options to what a run minimises: objective, head and development set, or why not."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from typing import Any

from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.headonly import HeadOnlyConfig
from speechadapt.backbones.ast import ASTBackbone
from speechadapt.backbones.base import Backbone
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.cli.datasets import Data
from speechadapt.cli.newheads import new_head
from speechadapt.cli.teachers import Teacher, distil, load_teacher
from speechadapt.errors import ConfigError
from speechadapt.heads.classifier import ClassifierHead
from speechadapt.heads.ctc import CtcHead
from speechadapt.heads.head import Head
from speechadapt.heads.regressor import RegressorHead
from speechadapt.model import SpeechModel
from speechadapt.training.config import TrainConfig
from speechadapt.training.dev import DevSet, FeaturesDev, LabelDev, TextDev, ValueDev
from speechadapt.training.objectives.classify import ClassifyObjective
from speechadapt.training.objectives.ctc import CtcObjective
from speechadapt.training.objectives.distillation import Spoken
from speechadapt.training.objectives.features import FeaturesObjective
from speechadapt.training.objectives.objective import Objective
from speechadapt.training.objectives.regress import RegressObjective
from speechadapt.training.objectives.whisper import WhisperObjective

# objective -> kind of the adapters it makes
KINDS = {
    "whisper": "language",
    "ctc": "language",
    "classify": "task",
    "regress": "task",
    "features": "noise",
}
_WITH_HEAD = ("ctc", "classify", "regress")

# option -> objectives that know it
_OPTIONS = {
    "labels": ("classify", "regress"),
    "multi_label": ("classify",),
    "vocabulary": ("ctc",),
    "vocabulary_size": ("ctc",),
    "layer_weights": _WITH_HEAD,
    "teacher": ("whisper", "ctc"),
}
_TEACHING = ("teacher_adapter", "teacher_weight", "temperature")


@dataclass(frozen=True)
class Task:
    """What a run minimises.

    Attributes:
        objective: The loss.
        head: What learns beside the adapter, or the base's own; None = nothing.
        dev: What ranks its steps; None = there is no development set.
        settings: What decides the result beside the run's other settings, as JSON.
    """

    objective: Objective
    head: Head | None
    dev: DevSet | None
    settings: dict[str, Any] = field(default_factory=dict)


def add_objective(parser: argparse._ActionsContainer) -> None:
    """The options that ``train`` and ``finetune`` share."""
    add = parser.add_argument
    add(
        "--labels",
        metavar="NAME",
        help="what classify and regress learn: a table of each data dir, such as utt2lang, "
        "utt2category or utt2mos (in a manifest the field of that name)",
    )
    add("--multi-label", action="store_true", help="classify: several labels may be true at once")
    add("--teacher", metavar="BASE", help="distil: learn from this base's answers too")
    add("--teacher-adapter", metavar="DIR", help="what the teacher uses (default: nothing)")
    add("--teacher-weight", type=float, metavar="W", help="of the teacher's part (default 1.0)")
    add(
        "--temperature",
        type=float,
        metavar="T",
        help="above 1 the teacher's second choices count more (default 1.0)",
    )


def chosen(args: argparse.Namespace, backbone: Backbone) -> str:
    """The objective asked for, or the one a base is made for.

    Raises:
        ConfigError: The base cannot have it, or an option belongs to another one.
    """
    whisper, ast = isinstance(backbone, WhisperBackbone), isinstance(backbone, ASTBackbone)
    own = "whisper" if whisper else "classify" if ast else "ctc"
    name: str = args.objective or own
    if name == "whisper" and not whisper:
        use = "classify" if ast else "ctc"
        raise ConfigError(f"--objective whisper: {args.base} has no decoder; use {use}")
    if name == "ctc" and ast:
        raise ConfigError(f"--objective ctc: {args.base} labels sounds and writes no text")
    for option, names in _OPTIONS.items():
        if getattr(args, option, None) and name not in names:
            raise ConfigError(
                f"--{option.replace('_', '-')}: the objective {name} has no use for it; it belongs "
                f"to {' and '.join(names)}"
            )
    if name in _OPTIONS["labels"] and not args.labels:
        raise ConfigError(
            f"--objective {name} needs --labels: the name of a table with the labels of each "
            "utterance, such as utt2category"
        )
    for option in _TEACHING:
        if getattr(args, option) is not None and not args.teacher:
            raise ConfigError(f"--{option.replace('_', '-')}: say with --teacher who teaches")
    return name


def adapter_task(
    args: argparse.Namespace,
    model: SpeechModel[Any],
    data: Data,
    dev: Data,
    config: TrainConfig,
    adapter: AdapterConfig,
) -> Task:
    """What an adapter learns, with a new head where it needs one.

    Raises:
        ConfigError: Base, objective and options do not go together.
        DataError: A label or transcript cannot be learnt.
    """
    name = chosen(args, model.backbone)
    if name == "features" and config.augmentation.noise is None:
        raise ConfigError(
            "--objective features learns to undo noise, and without --noise there is none: what "
            "the adapter hears would be what it is compared with"
        )
    if name not in _WITH_HEAD and isinstance(adapter, HeadOnlyConfig):
        raise ConfigError(
            f"--adapter head: the objective {name} has no head, so nothing would be learnt; use "
            f"another adapter, or one of {', '.join(_WITH_HEAD)}"
        )
    teacher = load_teacher(args, model, frozen=True)
    head = new_head(args, name, model.backbone, data, config.seed, teacher)
    return _task(args, name, model, head, data, dev, config, teacher)


def base_task(
    args: argparse.Namespace, model: SpeechModel[Any], data: Data, dev: Data, config: TrainConfig
) -> Task:
    """What a whole base learns, with the head of its checkpoint.

    Raises:
        ConfigError: Base, objective and options do not go together.
        DataError: A label or transcript cannot be learnt.
    """
    name, head = chosen(args, model.backbone), model.backbone.head
    wanted = {"ctc": CtcHead, "classify": ClassifierHead}.get(name)
    if wanted is not None and not isinstance(head, wanted):
        raise ConfigError(
            f"--base {args.base}: its checkpoint has no {wanted.kind} head to train; give one that "
            "has (…ForCTC, …ForAudioClassification), or train an adapter, which brings its own"
        )
    if name == "classify":
        assert isinstance(head, ClassifierHead)
        head.config = replace(head.config, multi_label=args.multi_label)
    teacher = load_teacher(args, model, frozen=False)
    return _task(args, name, model, head, data, dev, config, teacher)


def _task(
    args: argparse.Namespace,
    name: str,
    model: SpeechModel[Any],
    head: Head | None,
    data: Data,
    dev: Data,
    config: TrainConfig,
    teacher: Teacher | None,
) -> Task:
    silence = config.trailing_silence
    objective: Objective
    ranking: DevSet | None = None
    if isinstance(head, ClassifierHead) and name == "classify":
        objective = ClassifyObjective(head, {**data.labels, **dev.labels})
    elif isinstance(head, RegressorHead) and name == "regress":
        objective = RegressObjective(head, {**data.labels, **dev.labels})
    elif name == "features":
        objective = FeaturesObjective(model.backbone, silence)
    else:
        spoken: Spoken
        if isinstance(head, CtcHead) and name == "ctc":
            spoken = CtcObjective(model.backbone, head, silence)
        else:
            spoken = WhisperObjective(model.backbone, args.language)
        objective = distil(args, spoken, teacher, silence) if teacher else spoken
    for utterance in data.utterances:
        objective.check(utterance)  # what cannot be learnt is told before training
    if dev.utterances:
        if isinstance(objective, (ClassifyObjective, RegressObjective)):
            for utterance in dev.utterances:
                objective.check(utterance)
        ranking = _ranking(args, objective, model, dev, config)
    return Task(objective, head, ranking, _settings(args, name, teacher))


def _settings(args: argparse.Namespace, name: str, teacher: Teacher | None) -> dict[str, Any]:
    """The options that decide the result, as JSON."""
    settings = {option: getattr(args, option, None) for option in _OPTIONS}
    if teacher is not None:
        settings["teacher"] = teacher.model.backbone.fingerprint
        for option in _TEACHING:
            settings[option] = getattr(args, option)
    return {"objective": name, **{key: value for key, value in settings.items() if value}}


def _ranking(
    args: argparse.Namespace,
    objective: Objective,
    model: SpeechModel[Any],
    dev: Data,
    config: TrainConfig,
) -> DevSet:
    silence = config.trailing_silence
    if isinstance(objective, ClassifyObjective):
        several = objective.head.config.multi_label
        return LabelDev(model, dev.utterances, dev.labels, several, silence)
    if isinstance(objective, RegressObjective):
        values = {utterance.id: objective.value(utterance) for utterance in dev.utterances}
        return ValueDev(model, dev.utterances, values, silence)
    if isinstance(objective, FeaturesObjective):
        return FeaturesDev(model, objective, dev.utterances, config)
    return TextDev(model, dev.utterances, args.language, silence)
