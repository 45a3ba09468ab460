"""Who teaches in distillation, and whether student and teacher speak of the same."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from speechadapt.backbones.base import Backbone
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.errors import ConfigError
from speechadapt.heads.ctc import CtcConfig, CtcHead
from speechadapt.heads.head import unlike
from speechadapt.model import SpeechModel, load
from speechadapt.route import Route
from speechadapt.training.objectives.ctc import CtcObjective
from speechadapt.training.objectives.distillation import Distillation, Spoken
from speechadapt.training.objectives.whisper import WhisperObjective


@dataclass(frozen=True)
class Teacher:
    """A frozen model and what it uses.

    Attributes:
        name: As the user gave it.
        model: Base and, where it uses one, its adapter.
        route: Of every utterance.
    """

    name: str
    model: SpeechModel[Any]
    route: Route

    @property
    def head(self) -> CtcHead:
        """Its CTC head.

        Raises:
            ConfigError: It has none.
        """
        head = self.model.head(self.route)
        if not isinstance(head, CtcHead):
            raise ConfigError(
                f"--teacher {self.name}: {unlike(CtcHead.kind, head, 'teaching ctc')}"
            )
        return head

    @property
    def vocabulary(self) -> CtcConfig:
        """Of its CTC head."""
        return self.head.config


def load_teacher(args: argparse.Namespace, model: SpeechModel[Any], frozen: bool) -> Teacher | None:
    """The teacher that the options name, if any.

    Args:
        args: Of the command.
        model: The student's.
        frozen: Whether the student's base stays as it is, so that it may teach too.
    """
    if not args.teacher:
        return None
    for option, value in (("weight", args.teacher_weight), ("temperature", args.temperature)):
        if value is not None and not 0 < value < float("inf"):
            name = "--teacher-weight" if option == "weight" else "--temperature"
            raise ConfigError(f"{name} {value}: give a number above 0")
    if frozen and args.teacher == args.base and not args.teacher_adapter:
        return Teacher(args.teacher, model, None)
    # A model of its own: in the student's bank its adapter might bear the student's name.
    adapters = [args.teacher_adapter] if args.teacher_adapter else []
    teacher = load(args.teacher, adapters, device=args.device)
    names = [adapter.name for adapter in teacher.bank]
    return Teacher(args.teacher, teacher, names[0] if names else None)


def distil(
    args: argparse.Namespace, objective: Spoken, teacher: Teacher, trailing_silence: float
) -> Distillation:
    """The objective with the teacher's part.

    Raises:
        ConfigError: Teacher and student do not speak of the same tokens.
    """
    its: Spoken
    if isinstance(objective, WhisperObjective):
        its = _whisper(teacher, objective)
    else:
        assert isinstance(objective, CtcObjective)
        its = _ctc(teacher, objective)
    silence = max(trailing_silence, teacher.model.trailing_silence([teacher.route]))
    weight = 1.0 if args.teacher_weight is None else args.teacher_weight
    temperature = 1.0 if args.temperature is None else args.temperature
    return Distillation(objective, teacher.model, teacher.route, its, silence, weight, temperature)


def _whisper(teacher: Teacher, objective: WhisperObjective) -> WhisperObjective:
    backbone: Backbone = teacher.model.backbone
    if not isinstance(backbone, WhisperBackbone):
        raise ConfigError(f"--teacher {teacher.name}: no Whisper, so it cannot teach one")
    mine, its = (each.tokenizer.get_vocab() for each in (objective.backbone, backbone))
    if mine != its:
        raise ConfigError(
            f"--teacher {teacher.name}: its vocabulary has {len(its)} tokens and the student's "
            f"{len(mine)}, or other ones; a teacher needs the same, as tiny to large-v2 have"
        )
    return WhisperObjective(backbone, objective.language)


def _ctc(teacher: Teacher, objective: CtcObjective) -> CtcObjective:
    backbone, head = teacher.model.backbone, teacher.head
    if head.config.tokens != objective.head.config.tokens:
        raise ConfigError(
            f"--teacher {teacher.name}: its CTC vocabulary has {len(head.config.tokens)} tokens "
            f"and the student's {len(objective.head.config.tokens)}, or other ones; a teacher "
            "needs the same"
        )
    if backbone.position_seconds != objective.backbone.position_seconds:
        raise ConfigError(
            f"--teacher {teacher.name}: it answers every {backbone.position_seconds} s and the "
            f"student every {objective.backbone.position_seconds} s; a teacher needs the same"
        )
    return CtcObjective(backbone, head, objective.trailing_silence)
