"""docs/adapters.md says how many parameters each preset has: the figures are computed here."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    ASTConfig,
    ASTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from speechadapt.adapters.adapter import Adapter, AdapterInfo
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.backbones import ast, wav2vec2, whisper
from speechadapt.errors import ConfigError

WHISPER_BASE = WhisperConfig(
    d_model=512,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    encoder_ffn_dim=2048,
    decoder_ffn_dim=2048,
    vocab_size=51865,
)


@pytest.fixture(scope="module")
def tables():
    """Sites of the three bases at their real sizes, without memory for their weights."""
    with torch.device("meta"):
        models = (
            WhisperForConditionalGeneration(WHISPER_BASE),
            Wav2Vec2Model(Wav2Vec2Config()),
            ASTModel(ASTConfig()),
        )
    return (
        whisper.site_table(models[0], nn.Identity()),
        wav2vec2.site_table(models[1], nn.Identity()),
        ast.site_table(models[2]),
    )


def documented() -> dict[str, list[int | None]]:
    """Numbers of parameters by preset; None for a dash, where a base has no place for it."""
    text = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*?((?:\| [\d,–]+ ){3})\|$", text, re.MULTILINE)
    return {name: [number(cell) for cell in cells.split("|")[1:]] for name, cells in rows}


def number(cell: str) -> int | None:
    return None if cell.strip() == "–" else int(cell.replace(",", ""))


def parameters(config, sites) -> int | None:
    try:
        return Adapter.blank("a", config, family_of(config), sites, AdapterInfo()).parameter_count
    except ConfigError:
        return None


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_the_presets(tables, name):
    assert documented()[name] == [parameters(PRESETS[name], sites) for sites in tables]


def test_every_preset_is_documented():
    assert set(documented()) == set(PRESETS)
