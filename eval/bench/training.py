"""Time and memory of training steps: adapters everywhere, in the top half, with the states below it
kept, against every parameter of the base and against PEFT's LoRA. A Whisper learns by its decoder's
cross entropy, another base by its own CTC head.

    python eval/bench/training.py egs/tuxpaint/asr1/data/ro/train --steps 5 --rounds 5 --threads 2

All systems train on the same batches, in turn in one process, so that a busy machine slows them
alike. Prints the median over the rounds of CPU seconds a step, as a ratio to adapters everywhere,
and the peak of memory of a process that trains one system alone, less what base and data take.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of, preset
from speechadapt.backbones.base import Backbone
from speechadapt.data import Utterance, load_utterances
from speechadapt.data.batching import batch_stream
from speechadapt.heads.ctc import CtcHead
from speechadapt.model import SpeechModel
from speechadapt.route import Route
from speechadapt.training.config import TrainConfig
from speechadapt.training.examples import TrainingSet
from speechadapt.training.objectives.ctc import CtcObjective
from speechadapt.training.objectives.objective import Objective
from speechadapt.training.objectives.whisper import WhisperObjective
from speechadapt.training.target import AdapterTarget, FullTarget, Target
from speechadapt.training.trainer import Trainer

CONFIG = TrainConfig()
LORA = LoraConfig(rank=32, alpha=64.0)
UTTERANCES = 200  # of the data: enough for different batches, quick to read


class PeftTarget:
    """PEFT's LoRA of the same rank in the same layers."""

    base_is_frozen = True
    files = ()

    def __init__(self, model: SpeechModel[Any]):
        import peft

        wanted = r".*att\w*\.(q_proj|v_proj)"  # of every attention
        config = peft.LoraConfig(r=LORA.rank, lora_alpha=64, target_modules=wanted)
        self.wrapped = peft.get_peft_model(model.backbone.model, config)

    def routes(self, utterances: Sequence[Utterance]) -> list[Route]:
        """None: PEFT's adapter is always on."""
        return [None] * len(utterances)

    def layers_below(self, backbone: Backbone) -> None:
        """PEFT does not say."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The matrices of LoRA."""
        return ((n, p) for n, p in self.wrapped.named_parameters() if "lora_" in n)

    named_tensors = named_parameters

    def train(self, mode: bool) -> None:
        """As PEFT left it: they learn."""

    def save(self, path: Path) -> None:
        """Nothing is kept of a benchmark."""


def _adapter(config: AdapterConfig) -> Callable[[SpeechModel[Any]], Target]:
    def make(model: SpeechModel[Any]) -> Target:
        sites = model.backbone.sites.values()
        adapter = Adapter.fresh("a", config, family_of(config), sites, AdapterInfo())
        return AdapterTarget(model.bank.add(adapter))

    return make


def _top_half(model: SpeechModel[Any]) -> Target:
    half = model.backbone.depth // 2
    return _adapter(replace(preset("pfeiffer"), top_layers=half))(model)


SYSTEMS: dict[str, tuple[Callable[[SpeechModel[Any]], Target], bool]] = {
    "adapters everywhere": (_adapter(preset("pfeiffer")), False),
    "adapters in the top half": (_top_half, False),
    "the same, states below kept": (_top_half, True),
    f"LoRA q, v r={LORA.rank}": (_adapter(LORA), False),
    f"PEFT, LoRA q, v r={LORA.rank}": (PeftTarget, False),
    "every parameter": (FullTarget, False),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data dir or manifest")
    parser.add_argument("--base", default="openai/whisper-base")
    parser.add_argument("--language", default="ro")
    parser.add_argument("--steps", type=int, default=5, help="of a round (default 5)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.only:
        print(_memory(args))
        return
    trainers = {name: _trainer(args, name) for name in SYSTEMS}
    batches = _batches(trainers["adapters everywhere"], args.steps * args.rounds + 1)
    seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for trainer in trainers.values():
        trainer._step(0, batches[:1])  # warm-up
    for index in range(args.rounds):
        mine = batches[1 + index * args.steps :][: args.steps]
        for name, trainer in trainers.items():
            began = time.process_time()
            for step, batch in enumerate(mine):
                trainer._step(step, [batch])
            seconds[name].append((time.process_time() - began) / args.steps)
    reference = seconds["adapters everywhere"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    print("| | parameters | CPU seconds a step | ratio | memory |\n|---|---|---|---|---|")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(taken, reference, strict=True))
        count = sum(p.numel() for p in trainers[name].parameters.values())
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        memory = float(subprocess.run(command, capture_output=True, check=True).stdout.split()[-1])
        mean = statistics.median(taken)
        print(f"| {name} | {count:,} | {mean:.2f} | {ratio:.3f} | {memory:.2f} GB |", flush=True)


def _trainer(args: argparse.Namespace, name: str) -> Trainer:
    make, keeps = SYSTEMS[name]
    model = speechadapt.load(args.base)
    target = make(model)
    target.train(True)
    utterances = load_utterances(args.data)[:UTTERANCES]
    below = target.layers_below(model.backbone) if keeps else None
    examples = TrainingSet(model.backbone, utterances, CONFIG, None, below)
    head, silence = model.backbone.head, CONFIG.trailing_silence
    objective: Objective = (
        CtcObjective(model.backbone, head, silence)
        if isinstance(head, CtcHead)
        else WhisperObjective(model.backbone, args.language)
    )
    folder = Path(tempfile.gettempdir())  # nothing is written before a run ends
    return Trainer(model, target, examples, objective, CONFIG, folder, {})


def _batches(trainer: Trainer, count: int) -> list[list[int]]:
    stream = batch_stream(trainer.examples.seconds, CONFIG.batch_seconds, CONFIG.seed)
    return list(itertools.islice(stream, count))


def _memory(args: argparse.Namespace) -> float:
    """Peak gigabytes of a few steps of one system, less what it takes before the first (Linux)."""
    trainer = _trainer(args, args.only)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = _resident("VmRSS")
    for step, batch in enumerate(_batches(trainer, args.steps)):
        trainer._step(step, [batch])
    return (_resident("VmHWM") - before) / 1e6


def _resident(name: str) -> int:
    """Of this process, in kB; getrusage would begin with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
