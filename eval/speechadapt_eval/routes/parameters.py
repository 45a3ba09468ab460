"""How large adapters are beside their base, from the headers of their files alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechadapt_eval.errors import EvalError
from speechadapt_eval.routes.tensors import files_of, read_tensors


@dataclass(frozen=True)
class Size:
    """What a model or an adapter takes.

    Attributes:
        name: Of its file or folder.
        tensors: How many.
        parameters: Numbers in all tensors; buffers that are stored (such as the statistics of a
            batch normalisation) are among them, tied tensors that are stored once count once.
        dtypes: Type to how many numbers are stored so.
        bytes: Of the safetensors files, headers included.
        share: Parameters per parameter of the base; NaN without base.
    """

    name: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    bytes: int
    share: float


def sizes(paths: Sequence[Path], base: Path | None = None) -> list[Size]:
    """Size of each, the base first, and of all without the base (``total``) at the end.

    Raises:
        EvalError: A file cannot be read, two have one name, or the base has no parameter.
    """
    whole = _size(_name(base), base) if base else None
    if whole and not whole.parameters:
        raise EvalError(f"{base} has no parameter, so nothing can be a share of it")
    found = [_size(name, path, whole) for name, path in _names(paths).items()]
    total = Counter[str]()
    for size in found:
        total.update(size.dtypes)
    parameters = sum(size.parameters for size in found)
    together = Size(
        "total",
        sum(size.tensors for size in found),
        parameters,
        dict(total),
        sum(size.bytes for size in found),
        parameters / whole.parameters if whole else math.nan,
    )
    return [*([whole] if whole else []), *found, together]


def _size(name: str, path: Path, base: Size | None = None) -> Size:
    tensors = read_tensors(path)
    dtypes = Counter[str]()
    for tensor in tensors.values():
        dtypes[tensor.dtype] += tensor.numbers
    parameters = dtypes.total()
    share = parameters / base.parameters if base else math.nan
    file_bytes = sum(file.stat().st_size for file in files_of(path))
    return Size(name, len(tensors), parameters, dict(dtypes), file_bytes, share)


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in paths:
        if (name := _name(path)) in names:
            raise EvalError(f"{names[name]} and {path} are both called {name!r}: rename one")
        names[name] = path
    return names


def _name(path: Path) -> str:
    """That of the folder, or of the file without its suffix."""
    whole = path.resolve()
    return whole.name if path.is_dir() else whole.stem
