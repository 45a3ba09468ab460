"""The device a user names, checked before anything is loaded for it."""

from __future__ import annotations

import torch

from speechadapt.errors import ConfigError


def usable(name: str | torch.device) -> torch.device:
    """The device called ``name``.

    Raises:
        ConfigError: There is none of that name, this PyTorch cannot use it, or it holds no values.
    """
    try:
        device = torch.device(name)
        float(torch.zeros((), device=device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # What PyTorch says may be a page; which of these types depends on the device.
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"device {str(name)!r} cannot be used ({reason}); give cpu, or cuda, cuda:1, … where "
            "there is such a GPU and a PyTorch for it"
        ) from None
    return device
