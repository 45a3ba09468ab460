"""Every family by its method's name, and the presets people ask for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechadapt.adapters.bias import (
    AdapterBias,
    AdapterBiasConfig,
    BitFit,
    BitFitConfig,
    Ia3,
    Ia3Config,
)
from speechadapt.adapters.bottleneck import Bottleneck, BottleneckConfig
from speechadapt.adapters.config import AdapterConfig
from speechadapt.adapters.conv import Conformer, ConformerConfig, ConvPass, ConvPassConfig
from speechadapt.adapters.family import Family
from speechadapt.adapters.gated import Gated, GatedConfig
from speechadapt.adapters.headonly import HeadOnly, HeadOnlyConfig
from speechadapt.adapters.hydra import Hydra, HydraConfig
from speechadapt.adapters.invertible import Invertible, InvertibleConfig
from speechadapt.adapters.lora import Lora, LoraConfig
from speechadapt.adapters.mixture import Mixture, MixtureConfig
from speechadapt.adapters.mms import Mms, MmsConfig
from speechadapt.adapters.prefix import Prefix, PrefixConfig
from speechadapt.adapters.sparse import Sparse, SparseConfig
from speechadapt.errors import ConfigError

FAMILIES: dict[str, tuple[type[AdapterConfig], Family]] = {
    config.method: (config, family)
    for config, family in (
        (BottleneckConfig, Bottleneck()),
        (ConvPassConfig, ConvPass()),
        (ConformerConfig, Conformer()),
        (LoraConfig, Lora()),
        (HydraConfig, Hydra()),
        (AdapterBiasConfig, AdapterBias()),
        (Ia3Config, Ia3()),
        (BitFitConfig, BitFit()),
        (InvertibleConfig, Invertible()),
        (GatedConfig, Gated()),
        (MixtureConfig, Mixture()),
        (PrefixConfig, Prefix()),
        (SparseConfig, Sparse()),
        (HeadOnlyConfig, HeadOnly()),
        (MmsConfig, Mms()),
    )
}

PRESETS: dict[str, AdapterConfig] = {
    # after attention and after the feed-forward, before the residual is added
    "houlsby": BottleneckConfig(bottleneck=40, points=("attn.out", "ffn.out")),
    # once a layer, on the state after the feed-forward
    "pfeiffer": BottleneckConfig(bottleneck=64, points=("out",)),
    # beside the feed-forward
    "parallel": BottleneckConfig(bottleneck=64, points=("ffn.out",), placement="parallel"),
    # the same without LayerNorm, its output times four (He et al. 2022, section 4.6)
    "scaled_parallel": BottleneckConfig(
        bottleneck=64,
        points=("ffn.out",),
        placement="parallel",
        activation="relu",
        layer_norm=False,
        scale=4.0,
    ),
    # beside the queries and values of every attention
    "lora": LoraConfig(rank=16, alpha=32.0),
    # the other families as their papers have them
    "convpass": ConvPassConfig(),
    "conformer": ConformerConfig(),
    "hydra": HydraConfig(),
    "adapter_bias": AdapterBiasConfig(),
    "ia3": Ia3Config(),
    "bitfit": BitFitConfig(),
    "invertible": InvertibleConfig(),
    "gated": GatedConfig(),
    "dense_moa": MixtureConfig(),
    "soft_moa": MixtureConfig(routing="soft", stacks=("encoder",)),
    # keys and values of its own in every attention, or states that the frozen projections make them
    # of beside what self-attention reads (prompts of an encoder's layers, as the paper has them)
    "prefix": PrefixConfig(),
    "prompt": PrefixConfig(learns="states", points=("attn.kv",)),
    # a fifth of the weights of pfeiffer; as many weights as it has, five times as wide
    "sparse": SparseConfig(bottleneck=64),
    "large_sparse": SparseConfig(bottleneck=320),
    # in place of the language adapter that a checkpoint of MMS has in each layer
    "mms": MmsConfig(),
    # nothing but a head
    "head": HeadOnlyConfig(),
}


def preset(name: str) -> AdapterConfig:
    """The config called ``name``.

    Raises:
        ConfigError: There is none of that name.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"adapter {name!r} is unknown; choose {', '.join(PRESETS)}") from None


def family_of(config: AdapterConfig) -> Family:
    """The family that a config belongs to."""
    return FAMILIES[config.method][1]


def config_from_dict(values: Mapping[str, Any]) -> AdapterConfig:
    """A config from JSON, of whichever family it names.

    Raises:
        ConfigError: The method is unknown, or a value does not fit it.
    """
    method = values.get("method")
    if method not in FAMILIES:
        raise ConfigError(
            f"adapter config: method is {method!r}, expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[method][0].from_dict(values)
