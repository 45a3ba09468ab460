"""The contracts of DESIGN, once with real weights: every family on whisper-base, real recordings.

    python eval/bench/contracts.py egs/tuxpaint/asr1/data/be/test

In float64, as the test suite holds the same on small random models: what differs there is an error
and not the order of a sum. Prints a table, and ends with 1 if a contract does not hold. Differences
are the largest anywhere, relative to the largest value.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import speechadapt
from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.audio import load_audio
from speechadapt.call import running
from speechadapt.data import load_utterances
from speechadapt.decoding.options import DecodeOptions
from speechadapt.decoding.search import decode
from speechadapt.errors import ConfigError
from speechadapt.model import SpeechModel
from speechadapt.progress import progress
from speechadapt.route import Route
from speechadapt.store import load_adapter, save_adapter

SILENCE = 0.5
MOST = 1e-9  # what sums in float64 may differ by, relative
CHANGING = [name for name, config in PRESETS.items() if config.method != "head"]
COLUMNS = ("fresh", "states", "gradients", "greedy", "beam 5", "stored")


def main() -> int:
    """Check and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data dir or manifest")
    parser.add_argument("--base", default="openai/whisper-base")
    parser.add_argument("--presets", nargs="+", default=CHANGING)
    args = parser.parse_args()
    model = speechadapt.load(args.base, dtype=torch.float64)
    before = model.checksum()
    waves = [load_audio(u.audio, u.start, u.end) for u in load_utterances(args.data)[:4]]
    print(f"| preset | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    held = True
    with progress(args.presets, desc="presets", unit="preset") as bar:
        for name in bar:
            try:
                values = _check(model, waves, PRESETS[name])
            except ConfigError as error:  # this base has no place for it
                print(f"| {name} | {error} |{' |' * (len(COLUMNS) - 1)}", flush=True)
                continue
            cells = [f"{v:.0e}" if isinstance(v, float) else str(v) for v in values]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
            held &= all(v <= MOST if isinstance(v, float) else v == "equal" for v in values)
    frozen = model.checksum() == before
    print(f"base: {'unchanged' if frozen else 'CHANGED'}")
    return 0 if held and frozen else 1


def _check(model: SpeechModel[Any], waves: list[np.ndarray], config: AdapterConfig) -> list[Any]:
    plain = _states(model, waves, [None] * 4)
    adapter = _add(model, "a", config, 0)
    fresh = torch.equal(plain, _states(model, waves, ["a"] * 4))
    for index, name in enumerate(("a", "b")):
        adapter = _add(model, name, config, index)
        for key, tensor in adapter.named_tensors():
            if "/start." not in key and tensor.is_floating_point():
                tensor.data += 0.01 * torch.rand_like(tensor)
                tensor.data = tensor.float().double()  # as it is stored
    routes: list[Route] = ["a", None, "b", "a"]
    rows = range(4)
    together = _states(model, waves, routes)
    apart = [_states(model, [waves[i]], [routes[i]])[0] for i in rows]
    mixed = max(_difference(together[i, : len(apart[i])], apart[i]) for i in rows)
    both = _gradients(model, waves, routes)
    routed = [i for i in rows if routes[i]]  # the others have no gradient
    alone = [_gradients(model, [waves[i]], [routes[i]]) for i in routed]
    gradients = max(_difference(both[key], sum(each.get(key, 0) for each in alone)) for key in both)
    texts = []
    for beams in (1, 5):
        options = DecodeOptions(language="be", temperatures=(0.0,), beam_size=beams, max_tokens=24)
        found = _decode(model, waves, routes, options)
        single = [_decode(model, [waves[i]], [routes[i]], options)[0] for i in rows]
        texts.append("equal" if found == single else "differ")
    with tempfile.TemporaryDirectory() as folder:
        adapter.info.fingerprint = model.backbone.fingerprint
        save_adapter(adapter, Path(folder) / "b")
        model.bank.add(load_adapter(Path(folder) / "b", model.backbone))
        stored = _difference(_states(model, waves, routes), together)
    model.bank.detach()
    return ["equal" if fresh else "differ", mixed, gradients, *texts, stored]


def _add(model: SpeechModel[Any], name: str, config: AdapterConfig, seed: int) -> Adapter:
    sites = model.backbone.sites.values()
    return model.bank.add(
        Adapter.fresh(name, config, family_of(config), sites, AdapterInfo(), seed)
    )


def _states(model: SpeechModel[Any], waves: list[np.ndarray], routes: list[Route]) -> Tensor:
    return model.encode(waves, routes, SILENCE).states


def _gradients(
    model: SpeechModel[Any], waves: list[np.ndarray], routes: list[Route]
) -> dict[str, Tensor]:
    """Of a sum over the valid positions, by adapter and tensor."""
    adapters = [model.bank[name] for name in dict.fromkeys(routes) if isinstance(name, str)]
    parameters = {f"{a.name}/{key}": p for a in adapters for key, p in a.named_parameters()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    features = model.backbone.features(waves, SILENCE)
    with running(model.bank.call(routes, model.backbone.key_lengths(features))):
        encoded = model.backbone.encode(features)
    valid = torch.arange(encoded.states.shape[1]) < encoded.lengths[:, None]
    encoded.states[valid].square().sum().backward()
    found = {key: p.grad for key, p in parameters.items() if p.grad is not None}
    for parameter in parameters.values():
        parameter.requires_grad_(False).grad = None
    return found


def _decode(
    model: SpeechModel[Any], waves: list[np.ndarray], routes: list[Route], options: DecodeOptions
) -> list[tuple[int, ...]]:
    encoded = model.encode(waves, routes, SILENCE)
    seconds = [len(wave) / 16_000 for wave in waves]
    found = decode(model, encoded, routes, ["be"] * len(waves), options, seconds)
    return [hypothesis.tokens for hypothesis in found]


def _difference(a: Tensor, b: Any) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


if __name__ == "__main__":
    sys.exit(main())
