"""Shared fixtures: tiny random models of the real architecture, and real recordings on disk."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton, as transformers may

from huggingface_hub import constants as hub
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from speechadapt.backbones.checkpoints import WhisperCheckpoint
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.model import SpeechModel

torch.set_num_threads(1)
os.environ.pop("SPEECHADAPT_KERNELS", None)  # a test says which path it takes
# What only a GPU can say is no test without one.
collect_ignore = [] if torch.cuda.is_available() else ["speechadapt_kernels/test_on_device.py"]


class CharTokenizer:
    """A tokenizer small enough for a random model: one id for each letter, specials above."""

    letters = " abcdefghijklmnopqrstuvwxyz'"

    def __call__(self, text, add_special_tokens=False):
        found = [self.letters.index(c) for c in text.lower() if c in self.letters]
        return SimpleNamespace(input_ids=found)

    def save_pretrained(self, folder):
        (folder / "letters.txt").write_text(self.letters)

    def decode(self, tokens, skip_special_tokens=True):
        return "".join(self.letters[t] for t in tokens if t < len(self.letters))


def tiny_whisper(dtype=torch.float64, seed=0, **changes) -> WhisperCheckpoint:
    """A random Whisper of two layers with the real vocabulary layout scaled down."""
    torch.manual_seed(seed)
    values = {
        "vocab_size": 64,
        "num_mel_bins": 80,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_target_positions": 48,
        "pad_token_id": 40,
        "bos_token_id": 40,
        "eos_token_id": 40,
        "decoder_start_token_id": 41,
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
    }
    model = WhisperForConditionalGeneration(WhisperConfig(**(values | changes))).to(dtype)
    with torch.no_grad():  # random states that differ visibly from position to position
        for parameter in model.parameters():
            parameter.mul_(2.0)
    generation = GenerationConfig(
        decoder_start_token_id=41,
        eos_token_id=40,
        pad_token_id=40,
        bos_token_id=40,
        is_multilingual=True,
        lang_to_id={"<|be|>": 42, "<|ro|>": 43},
        task_to_id={"transcribe": 44, "translate": 45},
        no_timestamps_token_id=46,
        suppress_tokens=[],
        begin_suppress_tokens=[0, 40],
        alignment_heads=[[1, 0], [1, 1]],
        max_length=48,
    )
    return WhisperCheckpoint(
        model=model.eval().requires_grad_(False),
        tokenizer=CharTokenizer(),
        generation=generation,
        name="tiny",
        source="random",
    )


@pytest.fixture
def model() -> SpeechModel:
    """A tiny random Whisper in float64."""
    return SpeechModel(WhisperBackbone(tiny_whisper()))


@pytest.fixture
def no_caches(tmp_path, monkeypatch) -> None:
    """Empty caches, and a hub on a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("SPEECHADAPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPEECHADAPT_ARCHIVES", raising=False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)


@pytest.fixture
def waves() -> list[np.ndarray]:
    """Three speech-like waves of 1.30, 0.71 and 2.05 s, ``[samples]`` float32."""
    rng = np.random.default_rng(0)
    made = []
    for seconds in (1.3, 0.71, 2.05):
        time = np.arange(round(seconds * 16_000)) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * 150 * time * (1 + 0.2 * time)) * np.sin(9 * time) ** 2
        made.append((wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32))
    return made


@pytest.fixture(params=["triton", "torch"])
def operators(request, monkeypatch) -> str:
    """Either path of the fused operators: Triton's kernels on the GPU where there is one, else in
    its interpreter. What a kernel does not write is NaN."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", request.param)
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))
    return request.param


@pytest.fixture
def plain(monkeypatch) -> None:
    """Sums of torch, which operators are not called for as such."""
    monkeypatch.setenv("SPEECHADAPT_KERNELS", "torch")


def _poisoned(make):
    def made(*args, **settings):
        tensor = make(*args, **settings)
        if tensor.is_floating_point() and tensor.device.type != "meta":
            tensor.fill_(float("nan"))
        return tensor

    return made
