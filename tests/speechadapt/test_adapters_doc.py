"""docs/adapters.md says how many parameters each preset has: the figures are computed here, and
held against those that papers and AdapterHub report."""

import re
from dataclasses import replace
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
from speechadapt.adapters.bottleneck import BottleneckConfig
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.registry import PRESETS, family_of
from speechadapt.backbones import ast, wav2vec2, whisper
from speechadapt.backbones.base import Site
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
def bases():
    """The three at their real sizes, without memory for their weights."""
    with torch.device("meta"):
        return {
            "whisper": WhisperForConditionalGeneration(WHISPER_BASE),
            "wav2vec2": Wav2Vec2Model(Wav2Vec2Config()),
            "ast": ASTModel(ASTConfig()),
        }


@pytest.fixture(scope="module")
def tables(bases):
    """Their sites."""
    return {
        "whisper": whisper.site_table(bases["whisper"], nn.Identity()),
        "wav2vec2": wav2vec2.site_table(bases["wav2vec2"], nn.Identity()),
        "ast": ast.site_table(bases["ast"]),
    }


def documented() -> dict[str, list[int | None]]:
    """Numbers of parameters by preset; None for a dash, where a base has no place for it."""
    text = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*?((?:\| [\d,–]+ ){3})\|$", text, re.MULTILINE)
    return {name: [number(cell) for cell in cells.split("|")[1:]] for name, cells in rows}


def number(cell: str) -> int | None:
    return None if cell.strip() == "–" else int(cell.replace(",", ""))


def parameters(config: AdapterConfig, sites: list[Site]) -> int | None:
    """None where it cannot attach."""
    try:
        return Adapter.blank("a", config, family_of(config), sites, AdapterInfo()).parameter_count
    except ConfigError:
        return None


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_the_presets(tables, name):
    assert documented()[name] == [parameters(PRESETS[name], sites) for sites in tables.values()]


def test_every_preset_is_documented():
    assert set(documented()) == set(PRESETS)


THOMAS = replace(PRESETS["houlsby"], bottleneck=256)
CONFORMER = replace(PRESETS["conformer"], bottleneck=8)


@pytest.mark.parametrize(
    ("config", "base", "count", "share", "paper"),
    [
        (THOMAS, "wav2vec2", 9_498_624, 9.14, 9.2),  # Thomas et al. 2022, twice a layer
        (replace(THOMAS, top_layers=6), "wav2vec2", 4_749_312, 4.79, 4.85),  # its upper half
        (CONFORMER, "ast", 252_288, 0.29, 0.29),  # Cappellazzo et al. 2024, abstract
    ],
)
def test_shares_of_all_parameters_are_those_of_papers(
    tables, bases, config, base, count, share, paper
):
    """Adapters and base together, without a head."""
    assert parameters(config, tables[base]) == count
    whole = count + sum(parameter.numel() for parameter in bases[base].parameters())
    assert round(100 * count / whole, 2) == share == pytest.approx(paper, rel=0.015)


PLAIN = BottleneckConfig(bottleneck=32, layer_norm=False)


@pytest.mark.parametrize(
    ("config", "count", "hub"),
    [
        (PLAIN, 399_744, 0.40e6),  # seq_bn
        (replace(PLAIN, points=("attn.out", "ffn.out")), 799_488, 0.80e6),  # double_seq_bn
        (replace(PRESETS["lora"], rank=8), 294_912, 0.29e6),
        (PRESETS["ia3"], 43_008, 43e3),
    ],
)
def test_counts_on_whisper_base_are_those_of_adapterhub(tables, config, count, hub):
    assert parameters(config, tables["whisper"]) == count == pytest.approx(hub, rel=0.02)
