"""Distillation (Hinton et al. 2015): a teacher's distributions beside the references."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from speechadapt.backbones.base import Encoded
from speechadapt.call import running
from speechadapt.data import Utterance
from speechadapt.features import Features
from speechadapt.model import SpeechModel
from speechadapt.route import Route
from speechadapt.training.examples import Batch, Listener
from speechadapt.training.objectives.objective import Objective


class Spoken(Objective, Protocol):
    """An objective over distributions, which a teacher has too."""

    def logits(self, encoded: Encoded, targets: Any) -> Tensor:
        """Logits ``[tokens, vocabulary]`` or ``[batch, positions, vocabulary]``."""
        ...

    def loss_of(self, logits: Tensor, encoded: Encoded, targets: Any) -> Tensor:
        """The loss of these logits, summed."""
        ...


class Distillation:
    """``loss + weight · T² · KL(teacher ‖ student)``, both at temperature T.

    The divergence is summed over the tokens that are asked for (Whisper) or the valid positions
    (CTC). It is KL, not DistilWhisper's Jensen-Shannon divergence: its gradient is the difference
    of the two distributions, so it does not vanish where the student is far off, and it is in the
    same nats as the cross entropy beside it.

    Args:
        objective: What the student minimises beside.
        teacher: The teacher's model.
        route: What the teacher uses.
        its: The same objective as the teacher has it.
        trailing_silence: Seconds after each utterance for the teacher.
        weight: Of the divergence.
        temperature: Above 1 the teacher's second choices count more.
    """

    def __init__(
        self,
        objective: Spoken,
        teacher: SpeechModel,
        route: Route,
        its: Spoken,
        trailing_silence: float,
        weight: float,
        temperature: float,
    ):
        self.objective, self.teacher, self.route, self.its = objective, teacher, route, its
        self.weight, self.temperature = weight, temperature
        self.listener: Listener | None = Listener(teacher.backbone, trailing_silence)

    def check(self, utterance: Utterance) -> None:
        """What the objective says."""
        self.objective.check(utterance)

    def targets(self, batch: Batch) -> tuple[Any, Features]:
        """The objective's, and what the teacher hears."""
        assert batch.clean is not None
        return self.objective.targets(batch), batch.clean

    def count(self, targets: tuple[Any, Features]) -> int:
        """What the objective counts."""
        return self.objective.count(targets[0])

    def loss(self, encoded: Encoded, targets: tuple[Any, Features]) -> Tensor:
        """Both parts, summed, in nats."""
        wanted, clean = targets
        logits = self.objective.logits(encoded, wanted)
        loss = self.objective.loss_of(logits, encoded, wanted)
        taught = self._taught(wanted, clean)
        if logits.dim() == 3:  # the teacher may hear more silence at the end
            valid = torch.arange(logits.shape[1], device=logits.device) < encoded.lengths[:, None]
            logits, taught = logits[valid], taught[:, : logits.shape[1]][valid]
        return loss + self.weight * divergence(taught, logits, self.temperature)

    @torch.no_grad()
    def _taught(self, wanted: Any, clean: Features) -> Tensor:
        routes = [self.route] * len(clean)
        backbone = self.teacher.backbone
        with running(self.teacher.bank.call(routes, backbone.key_lengths(clean))) as call:
            return self.its.logits(backbone.encode(clean, call.reads_layers), wanted)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)``, summed, in nats; T² keeps gradients as large as at T = 1.

    Args:
        teacher: Logits or log-probabilities ``[..., classes]``.
        student: Of the same shape.
        temperature: Both are divided by it.
    """
    wanted = (teacher / temperature).log_softmax(-1)
    said = (student / temperature).log_softmax(-1)
    return temperature**2 * (wanted.exp() * (wanted - said)).sum()
