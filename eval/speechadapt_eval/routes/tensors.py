"""Tensors in files: names, shapes, sizes and checksums without loading them, or their numbers."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from speechadapt_eval.errors import EvalError

_BLOCK = 1 << 22  # bytes hashed at a time


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file, as its header describes it.

    Attributes:
        file: Where it is.
        start: First byte in the file.
        size: Bytes.
        dtype: In safetensors' names: ``F32``, ``BF16``, ...
        shape: Of the tensor.
    """

    file: Path
    start: int
    size: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def sha256(self) -> str:
        """Checksum of its bytes, in hexadecimal digits."""
        digest, left = hashlib.sha256(), self.size
        with self.file.open("rb") as file:
            file.seek(self.start)
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise EvalError(f"{self.file} became shorter while it was read")
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The safetensors files that ``path`` names: itself, or those in the folder.

    Raises:
        EvalError: There is none.
    """
    if not path.is_dir():
        return [path]
    if found := sorted(path.glob("*.safetensors")):
        return found
    raise EvalError(f"{path} holds no .safetensors file: name the folder of a model or an adapter")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the headers of a safetensors file, or of all those in a folder.

    Raises:
        EvalError: A file cannot be read or is damaged, or two files hold a tensor of one name.
    """
    tensors: dict[str, Tensor] = {}
    for file in files_of(path):
        for name, tensor in _header(file).items():
            if name in tensors:
                raise EvalError(
                    f"{name!r} is in {tensors[name].file} and in {file}: keep one of the two copies"
                )
            tensors[name] = tensor
    return tensors


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a ``.npz`` or ``.safetensors`` file; the one of ``.npy`` is ``array``.

    Raises:
        EvalError: The file cannot be read, or holds what is no array of numbers.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except TypeError as error:  # bfloat16, which numpy has not
        raise EvalError(f"cannot read {path}: {error}; save it as float32") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise EvalError(f"cannot read {path}: {error}") from error


def _header(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "np"):  # the library checks the header against the file
            pass
        with file.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            entries = json.loads(raw.read(length))
    except (OSError, SafetensorError) as error:
        raise EvalError(f"cannot read {file}: {error}") from error
    entries.pop("__metadata__", None)
    return {
        name: Tensor(
            file,
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
            entry["dtype"],
            tuple(entry["shape"]),
        )
        for name, entry in entries.items()
    }
