"""AdapterHub's mixed batch (``BatchSplit``), each utterance with its own adapter, against its own
frozen base: what ``mixed.py`` measures of ours, in the environment that its library needs.

    python -m venv adapterhub && adapterhub/bin/pip install torch adapters==1.3.0
    adapterhub/bin/python eval/bench/adapterhub.py --rounds 15 --threads 1

Without the hub, write the base as a folder first (in speechadapt's environment), for ``--base``:

    import pathlib, speechadapt
    base = speechadapt.load("openai/whisper-base").backbone
    base.save(base.model, pathlib.Path("whisper-base"))

The library encodes 30 s only. At short context both models here are cut to as many positions as
the batch of ``mixed.py`` has; ``--seconds 30`` leaves them whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import adapters
import torch
import transformers
from adapters.composition import BatchSplit
from turns import table

ADAPTERS = 16
STEPS = 20  # one-token steps of a round
POSITION_SECONDS = 0.02


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="openai/whisper-base", help="hub id or folder")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    parser.add_argument("--seconds", type=float, default=3.5, help="of sound that is encoded")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()  # it warns of each pass without an adapter
    plain, model = (_load(args.base, args.seconds) for _ in range(2))
    adapters.init(model)
    families = {
        # Width 64 behind its own LayerNorm, on each layer's output.
        "bottleneck r=64": adapters.SeqBnConfig(
            reduction_factor=model.config.d_model / 64, non_linearity="gelu", ln_before=True
        ),
        "LoRA q,v r=8": adapters.LoRAConfig(r=8, alpha=16, attn_matrices=["q", "v"]),
    }
    systems: dict[str, tuple[Any, list[str]]] = {"frozen base": (plain, [])}
    for family, config in families.items():
        names = [f"{config.__class__.__name__}{index}" for index in range(ADAPTERS)]
        for name in names:
            model.add_adapter(name, config=config)
        systems[f"{family}, {ADAPTERS} adapters (BatchSplit)"] = (model, names)
        systems[f"{family}, one adapter"] = (model, names[:1])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapters." in name or ".loras." in name:
                parameter.add_(0.01 * torch.randn_like(parameter))
    model.eval()
    systems["no adapter active"] = (model, [])

    print(
        f"adapters {adapters.__version__}, transformers {transformers.__version__}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds"
    )
    torch.manual_seed(0)
    frames = 2 * model.config.max_source_positions
    features = torch.randn(ADAPTERS, model.config.num_mel_bins, frames)
    for batch in (1, 8):
        runs = {name: _steps(*system, features[:batch]) for name, system in systems.items()}
        table(f"decoder step, batch {batch}", runs, args.rounds)
    runs = {name: _encode(*system, features) for name, system in systems.items()}
    table(f"encoder, {ADAPTERS} utterances, {args.seconds} s", runs, args.rounds)


def _load(base: str, seconds: float) -> Any:
    """The model with so many seconds of encoder positions at most."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(base).eval()
    encoder = model.model.encoder
    positions = min(round(seconds / POSITION_SECONDS), model.config.max_source_positions)
    model.config.max_source_positions = encoder.config.max_source_positions = positions
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(
        encoder.embed_positions.weight.detach()[:positions].clone()
    )
    return model


def _use(model: Any, names: list[str], rows: int) -> None:
    """Make the library apply these adapters to a batch: one, or one a row."""
    if len(names) > 1:
        model.set_active_adapters(BatchSplit(*names[:rows], batch_sizes=[1] * rows))
    elif hasattr(model, "set_active_adapters"):
        model.set_active_adapters(names[0] if names else None)


@torch.inference_mode()
def _encode(model: Any, names: list[str], features: torch.Tensor) -> Iterator[float]:
    while True:
        _use(model, names, len(features))
        started = time.process_time()
        model.get_encoder()(features)
        yield time.process_time() - started


@torch.inference_mode()
def _steps(model: Any, names: list[str], features: torch.Tensor) -> Iterator[float]:
    tokens = torch.full((len(features), 1), model.config.decoder_start_token_id)
    while True:
        _use(model, names, len(features))
        encoded = model.get_encoder()(features)
        done = model(encoder_outputs=encoded, decoder_input_ids=tokens, use_cache=True)
        started = time.process_time()
        for _ in range(STEPS):
            done = model(
                encoder_outputs=encoded,
                decoder_input_ids=tokens,
                past_key_values=done.past_key_values,
                use_cache=True,
            )
        yield (time.process_time() - started) / STEPS


if __name__ == "__main__":
    main()
