"""Every family by its method's name, and the presets people ask for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechadapt.adapters.adapter import Family
from speechadapt.adapters.bottleneck import Bottleneck, BottleneckConfig
from speechadapt.adapters.config import AdapterConfig
from speechadapt.errors import ConfigError

FAMILIES: dict[str, tuple[type[AdapterConfig], Family]] = {
    BottleneckConfig.method: (BottleneckConfig, Bottleneck()),
}

PRESETS: dict[str, AdapterConfig] = {
    # after attention and after the feed-forward, before the residual is added
    "houlsby": BottleneckConfig(bottleneck=40, points=("attn.out", "ffn.out")),
    # once a layer, on the state after the feed-forward
    "pfeiffer": BottleneckConfig(bottleneck=64, points=("out",)),
    # beside the feed-forward
    "parallel": BottleneckConfig(bottleneck=64, points=("ffn.out",), placement="parallel"),
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
