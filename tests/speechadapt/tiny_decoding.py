"""A small random Whisper with a byte vocabulary, for the tests of decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode
from whisper_files import write_tokenizer

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.registry import family_of
from speechadapt.backbones.checkpoints import WhisperCheckpoint
from speechadapt.backbones.whisper import WhisperBackbone
from speechadapt.model import SpeechModel

END, START = 256, 257
# The layout of the tokenizer that whisper_files writes.
LANGUAGES = {"<|en|>": 258, "<|be|>": 259, "<|ro|>": 260, "<|haw|>": 261}
TASKS = {"translate": 262, "transcribe": 263}
NO_SPEECH, NO_TIMESTAMPS = 266, 267
VOCABULARY = 268 + 1501


def tiny_model(
    seed: int = 0, *, english: bool = False, scale: float = 3.0, listed_heads: bool = True
) -> SpeechModel:
    """A float64 model whose logits are far enough apart to leave no ties.

    Args:
        seed: Of the weights.
        english: English-only control tokens.
        scale: Of the output embedding; larger = more confident.
        listed_heads: Whether the generation config names alignment heads.
    """
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_target_positions=128,
        eos_token_id=END,
        bos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        tie_word_embeddings=False,
    )
    model = WhisperForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_positions" not in name:
                parameter.normal_(0, 0.25)
        model.model.decoder.embed_positions.weight.normal_(0, 0.5)
        model.proj_out.weight.mul_(scale)
        # Bytes and the end are likely, other control tokens are not.
        model.proj_out.weight[END + 1 :].mul_(0.2)
        model.proj_out.weight[END].mul_(3)
    generation = GenerationConfig(
        eos_token_id=END,
        bos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
        suppress_tokens=[1, 7, 40, *range(257, 267)],
        begin_suppress_tokens=[32, END],
    )
    generation.is_multilingual = not english
    generation.no_timestamps_token_id = NO_TIMESTAMPS
    generation.max_initial_timestamp_index = 50
    if listed_heads:
        generation.alignment_heads = [[0, 1], [1, 0], [1, 3]]
    if not english:
        generation.lang_to_id = dict(LANGUAGES)
        generation.task_to_id = dict(TASKS)
    tokenizer = tiny_tokenizer()
    checkpoint = WhisperCheckpoint(model, tokenizer, generation, "tiny", "a test", "0" * 64)
    return SpeechModel(WhisperBackbone(checkpoint))


def tiny_tokenizer() -> WhisperTokenizer:
    """One token a byte, and the end."""
    vocabulary = {sign: byte for byte, sign in bytes_to_unicode().items()}
    return WhisperTokenizer(vocab={**vocabulary, "<|endoftext|>": END}, merges=[])


def write_base(folder: Path) -> Path:
    """The small random Whisper as a transformers folder."""
    backbone = tiny_model(0).backbone
    network = backbone.model.float()
    network.generation_config = backbone.generation
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def add_adapter(model: SpeechModel, name: str, seed: int, strength: float = 0.5) -> None:
    """Load an adapter that changes the output."""
    config = BottleneckConfig(bottleneck=4, points=("attn.out", "ffn.out"))
    sites = model.backbone.sites.values()
    adapter = Adapter.fresh(name, config, family_of(config), sites, AdapterInfo(), seed)
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in adapter.named_tensors():
        tensor.data = tensor.data + strength * torch.randn(tensor.shape, generator=generator)
    model.bank.add(adapter)


def waves(*seconds: float, seed: int = 0) -> list[np.ndarray]:
    """Noise of these lengths, each of another colour."""
    generator = np.random.default_rng(seed)
    found = []
    for index, length in enumerate(seconds):
        noise = generator.standard_normal(round(16_000 * length)) * 0.1
        tone = np.sin(np.arange(len(noise)) * (0.02 + 0.05 * index))
        found.append((noise + 0.3 * tone).astype(np.float32))
    return found
