"""A batch in which every utterance has its own adapter, against the frozen base and against PEFT.

    python eval/bench/mixed.py --base openai/whisper-base --rounds 15 --threads 1

Everything runs in turn in one process, so that a busy machine slows all of it alike. Prints the
median over the rounds of CPU seconds as a ratio to the frozen base: the encoder at short context,
and cached one-token steps of the decoder. PEFT (if installed) has LoRA alone, with the same layers
and rank; its frozen base is the plain model.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from turns import table

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.lora import LoraConfig
from speechadapt.adapters.registry import family_of
from speechadapt.decoding.state import DecoderState
from speechadapt.model import SpeechModel
from speechadapt.route import Route

ADAPTERS = 16
STEPS = 20  # one-token steps of a round
SILENCE = 0.5
FAMILIES: dict[str, AdapterConfig] = {
    "bottleneck r=64": BottleneckConfig(bottleneck=64, points=("out",)),
    "LoRA q,v r=8": LoraConfig(rank=8, points=("attn.q", "attn.v", "cross.q", "cross.v")),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="openai/whisper-base")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    # Loaded twice: the frozen base, and PEFT's, have no hooks of ours.
    plain, model = speechadapt.load(args.base), speechadapt.load(args.base)
    rng = np.random.default_rng(0)
    waves = [
        rng.standard_normal(round(seconds * 16_000)).astype(np.float32) * 0.1
        for seconds in np.linspace(1.5, 3.0, ADAPTERS)
    ]
    for family, config in FAMILIES.items():
        for index in range(ADAPTERS):
            _add(model, f"{_key(family)}-{index}", config, index)
    systems: dict[str, tuple[Any, list[Route], AbstractContextManager[Any]]] = {
        "frozen base": (plain, [None] * ADAPTERS, nullcontext())
    }
    for family in FAMILIES:
        names = [f"{_key(family)}-{index}" for index in range(ADAPTERS)]
        systems[f"{family}, {ADAPTERS} adapters"] = (model, list(names), nullcontext())
        systems[f"{family}, one adapter"] = (model, [names[0]] * ADAPTERS, nullcontext())
    systems["no route, adapters loaded"] = (model, [None] * ADAPTERS, nullcontext())
    systems |= _peft(plain)

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    for batch in (1, 8):
        _table(f"decoder step, batch {batch}", _steps(waves, batch), systems, args.rounds)
    _table("encoder, 16 utterances", _encode(waves), systems, args.rounds)


def _key(family: str) -> str:
    return family.replace(" ", "_").replace(",", "")


def _add(model: SpeechModel[Any], name: str, config: AdapterConfig, seed: int) -> None:
    sites = model.backbone.sites.values()
    adapter = Adapter.fresh(name, config, family_of(config), sites, AdapterInfo(), seed)
    for _, tensor in adapter.named_tensors():
        tensor.data.add_(0.01 * torch.randn_like(tensor))
    model.bank.add(adapter)


def _peft(model: SpeechModel[Any]) -> dict[str, Any]:
    """The same LoRAs in PEFT, its mixed batch by ``adapter_names``."""
    try:
        import peft
    except ImportError:
        print("peft is not installed: left out")
        return {}
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    names = [f"a{index}" for index in range(ADAPTERS)]
    wrapped = peft.get_peft_model(copy.deepcopy(model.backbone.model), config, names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, config)
    wrapped.eval()
    backbone = copy.copy(model.backbone)
    backbone.model = wrapped.base_model.model
    theirs = SimpleNamespace(backbone=backbone, call=model.call, bank=model.bank)
    theirs.encode = lambda *values: SpeechModel.encode(theirs, *values)  # type: ignore[arg-type]

    class Mixed(AbstractContextManager[Any]):
        """PEFT's hooks for one batch: names of its rows."""

        rows = ADAPTERS

        def __enter__(self) -> None:
            peft_model: Any = wrapped.base_model  # typed as any module
            self.hooks = peft_model._enable_peft_forward_hooks(adapter_names=names[: self.rows])
            self.hooks.__enter__()

        def __exit__(self, *error: Any) -> None:
            self.hooks.__exit__(*error)

    routes: list[Route] = [None] * ADAPTERS
    return {
        f"PEFT {peft.__version__} LoRA q,v r=8, {ADAPTERS} adapters": (theirs, routes, Mixed()),
        "PEFT LoRA q,v r=8, one adapter": (theirs, routes, nullcontext()),
    }


def _encode(waves: list[np.ndarray]) -> Callable[..., Iterator[float]]:
    def run(model: Any, routes: list[Route], context: Any) -> Iterator[float]:
        while True:
            if hasattr(context, "rows"):
                context.rows = len(waves)
            started = time.process_time()
            with context:
                model.encode(waves, routes, SILENCE)
            yield time.process_time() - started

    return run


def _steps(waves: list[np.ndarray], batch: int) -> Callable[..., Iterator[float]]:
    @torch.inference_mode()
    def once(model: Any, routes: list[Route], context: Any) -> float:
        if hasattr(context, "rows"):
            context.rows = batch
        with context:
            encoded = model.encode(waves[:batch], routes[:batch], SILENCE)
            state = DecoderState(model, encoded, routes[:batch])
            tokens = torch.full((batch, 1), 50258)
            state.logits(tokens)
            started = time.process_time()
            for _ in range(STEPS):
                state.logits(tokens)
            return (time.process_time() - started) / STEPS

    def run(model: Any, routes: list[Route], context: Any) -> Iterator[float]:
        while True:
            yield once(model, routes, context)

    return run


def _table(
    title: str, measure: Callable[..., Iterator[float]], systems: dict[str, Any], rounds: int
) -> None:
    table(title, {name: measure(*system) for name, system in systems.items()}, rounds)


if __name__ == "__main__":
    main()
