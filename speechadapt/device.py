"""The device a user names, checked before anything is loaded for it."""

from __future__ import annotations

import torch

from speechadapt.errors import ConfigError
from speechadapt_kernels.dispatch import uses_triton


def usable(name: str | torch.device) -> torch.device:
    """The device called ``name``.

    Raises:
        ConfigError: There is none of that name, this PyTorch cannot use it, it holds no values, or
            the operators that the environment asks for (``SPEECHADAPT_KERNELS``) do not run there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {str(name)!r} is unknown; give cpu, cuda, cuda:1, …") from None
    try:
        float(torch.zeros((), device=device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind has its own
        reason = str(error).strip().partition("\n")[0].rstrip(".")  # it may be a page
        raise ConfigError(
            f"device {str(name)!r} cannot be used ({reason}); give cpu, or cuda, cuda:1, … where "
            "there is such a GPU and a PyTorch for it"
        ) from None
    try:
        uses_triton(device, torch.float32)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return device
