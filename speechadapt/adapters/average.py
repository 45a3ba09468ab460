"""Several runs of one adapter as one adapter: the mean of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from speechadapt.adapters.adapter import HEAD, Adapter
from speechadapt.errors import ConfigError


def average(name: str, adapters: Sequence[Adapter]) -> Adapter:
    """A new adapter whose tensors are the mean of those of ``adapters``; it costs what one costs.

    A uniform soup (Wortsman et al. 2022, *Model soups*, section 2; for adapters Chronopoulou et
    al. 2023, *AdapterSoup*). The runs may differ in data, augmentation, order and length, but must
    have started from the same tensors (the same seed or the same ``--init``): otherwise their
    hidden units do not correspond, and the mean of two good adapters is a poor one.

    Args:
        name: How routes call the result.
        adapters: One or more, of one configuration and for one base. They stay as they are.

    Raises:
        ConfigError: They are configured differently, or sparse with different weights kept.
    """
    first = adapters[0]
    for other in adapters[1:]:
        first.check_same_config(other)
    tensors = [dict(adapter.named_tensors()) for adapter in adapters]
    means: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors[0].items():
        site, _, part = key.partition("/")
        if not tensor.is_floating_point():  # which weights a sparse adapter has
            for number, values in enumerate(tensors, 1):
                if not torch.equal(tensor, values[key]):
                    raise ConfigError(
                        f"adapters 1 and {number} keep different weights ({key}), so they have no "
                        "average; train one from the other with --init"
                    )
            means.setdefault(site, {})[part] = tensor.detach().clone()
            continue
        stacked = torch.stack([values[key].detach().double() for values in tensors])
        means.setdefault(site, {})[part] = stacked.mean(0).to(tensor.dtype)
    infos = [adapter.info for adapter in adapters]
    languages = {info.language for info in infos}
    info = replace(
        first.info,
        language=languages.pop() if len(languages) == 1 else None,
        trailing_silence=max(info.trailing_silence for info in infos),
        licence="; ".join(dict.fromkeys(info.licence for info in infos if info.licence)),
        training={f"averaged run {n}": info.training for n, info in enumerate(infos, 1)},
        results={},
    )
    head = first.head and type(first.head)(first.head.config, means.pop(HEAD))
    return Adapter(name, first.config, first.family, means, info, head)
