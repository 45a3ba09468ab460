"""Training that is killed on its way."""

from contextlib import contextmanager
from unittest.mock import patch

from speechadapt.training.trainer import Trainer


class Killed(Exception):
    """Stands for a kill: nothing of the trainer's own runs afterwards."""


@contextmanager
def killed_at(number):
    """Training that begins inside the ``with`` block does not reach step ``number``."""
    step = Trainer._step

    def short(trainer, now, batches):
        if now == number:
            raise Killed
        return step(trainer, now, batches)

    with patch.object(Trainer, "_step", short):
        yield
