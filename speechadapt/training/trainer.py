"""The training loop: resumable at any step, the same bytes whether it was interrupted or not."""

from __future__ import annotations

import itertools
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from speechadapt.adapters.adapter import Adapter
from speechadapt.call import Call, running
from speechadapt.data.batching import batch_stream
from speechadapt.errors import SpeechAdaptError
from speechadapt.features import Features
from speechadapt.files import check_target, write_json
from speechadapt.model import SpeechModel
from speechadapt.progress import progress
from speechadapt.training.config import TrainConfig
from speechadapt.training.examples import Batch, TrainingSet
from speechadapt.training.objectives.objective import Objective
from speechadapt.training.pruning import BATCHES, awaits_scores, prune
from speechadapt.training.state import TrainState, load_state, save_state
from speechadapt.training.target import AdapterTarget, Target, restore, snapshot


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        steps: Optimiser steps done.
        best_step: Step whose parameters were kept.
        metric: What ``best_error`` is: ``wer``, ``error_rate``, …
        best_error: Their error on the development set; None without one.
        seconds: Spent in training, over all starts.
        peak_memory: Bytes of main memory the process used at most.
    """

    steps: int
    best_step: int
    metric: str
    best_error: float | None
    seconds: float
    peak_memory: int


class Trainer:
    """Trains a target on a training set.

    Args:
        model: Holds the frozen base and, in its bank, the adapter.
        target: What learns.
        examples: Training set.
        objective: Loss.
        config: Settings of the loop.
        folder: Where checkpoints, logs and the result go.
        settings: Everything that decides the result, as JSON; a checkpoint of other settings is
            refused.
        dev_error: Measures the error on the development set, lower is better; None keeps the last
            step.
        metric: What this error is called.
    """

    def __init__(
        self,
        model: SpeechModel,
        target: Target,
        examples: TrainingSet,
        objective: Objective,
        config: TrainConfig,
        folder: Path,
        settings: dict[str, Any],
        dev_error: Callable[[], float] | None = None,
        metric: str = "wer",
    ):
        self.model, self.target, self.examples = model, target, examples
        self.objective, self.config, self.folder = objective, config, folder
        self.settings, self.dev_error, self.metric = settings, dev_error, metric
        self.result = folder / ("adapter" if target.base_is_frozen else "model")
        self.parameters = dict(target.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), config.learning_rate, weight_decay=config.weight_decay
        )

    def run(self) -> TrainResult:
        """Train from the last checkpoint, or from the start, to the end.

        Raises:
            ConfigError: The folder holds a run with other settings.
            OutputError: The result cannot go there.
            SpeechAdaptError: The loss is not finite, or a parameter of the frozen base changed.
        """
        check_target(self.result, *self.target.files)  # before hours of work
        state = load_state(self.folder, self.settings)
        before = self.model.checksum() if self.target.base_is_frozen else None
        if state.step:
            self._restore(state)
        elif isinstance(self.target, AdapterTarget) and awaits_scores(self.target.adapter):
            prune(self.target.adapter, self.model, self._first_losses, self.config.seed)
        self._train(state)
        if before is not None and self.model.checksum() != before:
            raise SpeechAdaptError("the frozen base changed while training; please report this")
        restore(self.target, state.best or snapshot(self.target))
        self.target.save(self.result)
        result = TrainResult(
            steps=state.step,
            best_step=state.best_step or state.step,
            metric=self.metric,
            best_error=state.best_error,
            seconds=round(state.seconds, 1),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        write_json(
            self.folder / "result.json", {**vars(result), "errors": state.errors, **self.settings}
        )
        return result

    def _train(self, state: TrainState) -> None:
        config = self.config
        batches = batch_stream(self.examples.seconds, config.batch_seconds, config.seed)
        batches = itertools.islice(batches, state.step * config.accumulate, None)
        started, spent = time.monotonic(), state.seconds
        self.target.train(True)
        with (
            closing(_Log(self.folder, state.step)) as log,
            progress(total=config.steps, initial=state.step, desc="train", unit="step") as bar,
        ):
            while state.step < config.steps and not self._out_of_patience(state):
                step = state.step
                loss = self._step(step, list(itertools.islice(batches, config.accumulate)))
                state.step += 1
                best = {f"dev_{self.metric}": state.best_error}
                bar.set_postfix(loss=f"{loss:.3f}", **best, refresh=False)
                bar.update()
                log.write(state.step, {"loss": loss, "learning_rate": config.rate(step)})
                last = state.step == config.steps
                evaluated = last or state.step % config.eval_every == 0
                if evaluated and self.dev_error is not None:
                    self._evaluate(state)
                    log.write(state.step, {f"dev_{self.metric}": state.errors[-1][1]})
                state.seconds = spent + time.monotonic() - started
                if evaluated or state.step % config.checkpoint_every == 0:
                    self._save(state)
        self.target.train(False)

    def _step(self, step: int, batches: list[list[int]]) -> float:
        """One optimiser step over ``batches``; returns the loss per symbol."""
        prepared = self._prepared(step, batches)
        tokens = sum(self.objective.count(targets) for _, targets in prepared)
        total = 0.0
        for batch, targets in prepared:
            routes = self.target.routes(batch.utterances)
            call = self.model.bank.call(routes, self.model.backbone.key_lengths(batch.heard))
            loss = self._loss(call, batch.heard, targets) / tokens
            for penalty in call.penalties:
                loss = loss + penalty / len(batches)
            loss.backward()
            total += loss.item()
        if not total < float("inf"):
            raise SpeechAdaptError(
                f"step {step}: the loss is {total}; lower --learning-rate or look at the data"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step)
        for parameter in self.parameters.values():
            if parameter.grad is None:  # of a layer that was dropped in this step
                parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _prepared(self, step: int, batches: list[list[int]]) -> list[tuple[Batch, Any]]:
        """The batches of a step and their targets."""
        # All randomness is a function of (seed, step): a resumed run draws what the whole one drew.
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        rng = random.Random(f"{self.config.seed}/{step}")
        prepared = []
        for indices in batches:
            batch = self.examples.batch(indices, rng)
            prepared.append((batch, self.objective.targets(batch)))
        return prepared

    def _loss(self, call: Call, heard: Features, targets: Any) -> Tensor:
        """Loss of one batch, summed over its symbols."""
        device = self.model.backbone.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
        with running(call), autocast:
            encoded = self.model.backbone.encode(heard, call.reads_layers)
            return self.objective.loss(encoded, targets)

    def _first_losses(self, adapter: Adapter) -> Iterator[Tensor]:
        """Losses of the run's first batches with ``adapter`` in the place of the one trained."""
        stream = batch_stream(self.examples.seconds, self.config.batch_seconds, self.config.seed)
        for batch, targets in self._prepared(0, list(itertools.islice(stream, BATCHES))):
            heard = batch.heard
            call = Call((adapter,), ((0,),) * len(heard), self.model.backbone.key_lengths(heard))
            yield self._loss(call, heard, targets)

    def _evaluate(self, state: TrainState) -> None:
        assert self.dev_error is not None
        self.target.train(False)
        error = self.dev_error()
        self.target.train(True)
        state.errors.append([state.step, error])
        state.stale += 1
        if state.best_error is None or error < state.best_error:
            state.best_error, state.best_step, state.stale = error, state.step, 0
            state.best = snapshot(self.target)

    def _out_of_patience(self, state: TrainState) -> bool:
        return 0 < self.config.patience <= state.stale

    def _save(self, state: TrainState) -> None:
        state.parameters = snapshot(self.target)
        state.optimizer = {
            f"{moment}/{name}": self.optimizer.state[parameter][moment].cpu()
            for name, parameter in self.parameters.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        save_state(self.folder, state)

    def _restore(self, state: TrainState) -> None:
        restore(self.target, state.parameters)
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step)),
                **{
                    moment: state.optimizer[f"{moment}/{name}"].to(parameter.device)
                    for moment in ("exp_avg", "exp_avg_sq")
                },
            }


class _Log:
    """``log.jsonl`` for programs, TensorBoard for people; both forget what a resume does again."""

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line a kill cut short
                break
            if row["step"] <= step:
                kept.append(line)
        self.stream = self.path.open("w", encoding="utf-8")
        self.stream.writelines(line + "\n" for line in kept)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        self.stream.write(json.dumps({"step": step, **values}) + "\n")
        self.stream.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.stream.close()
        self.board.close()
