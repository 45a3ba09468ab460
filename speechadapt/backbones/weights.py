"""Weights of any frozen base: loading them whole or not at all, and telling them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speechadapt.backbones.tokens import first_line
from speechadapt.errors import CheckpointError


def load_strictly(model_class: Any, folder: Path, may_lack: Collection[str] = ()) -> Any:
    """Load safetensors weights that fit the config exactly.

    Args:
        model_class: A transformers model or ``AutoModel…`` class.
        folder: Holds ``config.json`` and the weights.
        may_lack: Beginnings of parameters' names that the file need not have.

    Raises:
        CheckpointError: A file is damaged, or a tensor is missing, left over, or misshapen.
    """
    try:
        model, report = model_class.from_pretrained(
            str(folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    # transformers, huggingface_hub, safetensors and torch each have their own for a bad file.
    except Exception as error:
        raise CheckpointError(
            f"{folder}: its weights cannot be loaded ({first_line(error)}); copy or download the "
            "model again"
        ) from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [name for name in map(str, report[what]) if not name.startswith(tuple(may_lack))]
        if names:
            raise CheckpointError(
                f"{folder}: its weights do not fit config.json ({what.replace('_', ' ')}, first "
                f"{sorted(names)[0]}); copy or download the model again"
            )
    return model


def fingerprint(model: PreTrainedModel) -> str:
    """Hash that tells one pretrained encoder from another, as hexadecimal digits.

    Eight tensors spread over the encoder are looked at, rounded to float16 so that copies of the
    same weights stored as float16 and as float32 agree. Heads are no part of it.
    """
    named = sorted(dict(model.named_parameters()).items())
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, tensor in named:
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
    spread = [named[i * (len(named) - 1) // 7][1] for i in range(8)]
    return digest_tensors(digest, spread)


def digest_tensors(digest: Any, tensors: Iterable[Tensor]) -> str:
    """The hash after the float16 values of ``tensors`` too, as hexadecimal digits."""
    for tensor in tensors:
        digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return str(digest.hexdigest())


def checksum(model: torch.nn.Module) -> str:
    """SHA-256 over every parameter and buffer, name, type, shape and bytes, as hexadecimal digits.

    Two equal checksums prove that nothing in the model has changed, not even by one bit.
    """
    digest = hashlib.sha256()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
