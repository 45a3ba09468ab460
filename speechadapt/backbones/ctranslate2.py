"""CTranslate2 (faster-whisper) checkpoints: read ``model.bin`` and build transformers' Whisper.

The file is untrusted: every length in it is checked against the file's size before it is used, and
nothing in it is ever executed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechadapt.backbones.tokens import generation_config, load_tokenizer, read_json
from speechadapt.errors import CheckpointError

VERSION = 6
SPEC = "WhisperSpec"

_BFLOAT16 = 5
_DTYPES: dict[int, np.dtype] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
    _BFLOAT16: np.dtype("<u2"),
}
_MAX_RANK = 3

# Settings that change what the network computes. transformers' Whisper has just these values.
_FIXED = {"activation": 3, "pre_norm": 1, "alibi": 0, "scale_embeddings": 0}


def read_model_bin(path: str | Path) -> dict[str, np.ndarray]:
    """Read every variable of a CTranslate2 ``model.bin``.

    Arrays are read-only views of the mapped file; only bfloat16 is copied (to float32). Quantised
    weights come back as stored, beside their ``*_scale``: see :func:`dequantised`. An alias shares
    its target's array.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is missing, cut, of another format or version, or a length in it
            does not fit.
    """
    path = Path(path)
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise CheckpointError(
            f"{path}: cannot be read ({error}); download the checkpoint again"
        ) from None
    reader = _Reader(path, data)
    version = reader.unsigned("I")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: not a CTranslate2 model of version {VERSION} (it begins with {version}); "
            "convert the checkpoint with a current ct2-transformers-converter"
        )
    spec = reader.string()
    if spec != SPEC:
        raise CheckpointError(
            f"{path}: holds a {spec!r}, not a {SPEC!r}; give a converted Whisper model"
        )
    reader.unsigned("I")  # revision of the spec; the variables are checked one by one instead
    variables: dict[str, np.ndarray] = {}
    for _ in range(reader.unsigned("I")):
        name, array = reader.variable()
        if name in variables:
            raise reader.damaged(f"the variable {name!r} is there twice")
        variables[name] = array
    for _ in range(reader.unsigned("I")):
        alias, target = reader.string(), reader.string()
        if target not in variables or alias in variables:
            raise reader.damaged(f"the alias {alias!r} to {target!r} does not fit the variables")
        variables[alias] = variables[target]
    if reader.offset != len(data):
        raise reader.damaged(f"{len(data) - reader.offset} bytes follow its end")
    return variables


class _Reader:
    """A cursor over the file that never looks beyond its end."""

    def __init__(self, path: Path, data: np.ndarray):
        self.path = path
        self.data = data
        self.offset = 0

    def damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: the file is damaged near byte {self.offset}: {why}; "
            "download the checkpoint again"
        )

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` bytes, a view."""
        left = len(self.data) - self.offset
        if count > left:
            raise self.damaged(f"{count} bytes are announced, {left} are left")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def unsigned(self, kind: str) -> int:
        """An unsigned integer of struct's kind ``B``, ``H`` or ``I``."""
        value: int = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)).tobytes())[0]
        return value

    def string(self) -> str:
        """A string: its length with the trailing NUL, then its bytes."""
        text = self.take(self.unsigned("H")).tobytes().decode("ascii", "replace")
        if not text.endswith("\0") or not text[:-1].isprintable():
            raise self.damaged("a name is not text")
        return text[:-1]

    def variable(self) -> tuple[str, np.ndarray]:
        """A variable's name and values."""
        name = self.string()
        rank = self.unsigned("B")
        if rank > _MAX_RANK:
            raise self.damaged(f"{name!r} has {rank} dimensions")
        shape = tuple(self.unsigned("I") for _ in range(rank))
        code, size = self.unsigned("B"), self.unsigned("I")
        dtype = _DTYPES.get(code)
        if dtype is None:
            raise self.damaged(f"{name!r} has the unknown data type {code}")
        # Python integers: the product of absurd dimensions must not wrap around.
        if math.prod(shape) * dtype.itemsize != size or 0 in shape:
            raise self.damaged(f"{name!r} of shape {list(shape)} does not fill {size} bytes")
        raw = self.take(size)
        array = np.frombuffer(raw, dtype).reshape(shape)
        if code == _BFLOAT16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return name, array


def dequantised(variables: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One weight as a new float32 array.

    int8 weights are divided by their scale for each output row, int16 ones by one scale for all.

    Raises:
        CheckpointError: The scale of a quantised weight is missing, of a wrong shape, or not
            positive.
    """
    stored = variables[name]
    values = stored.astype(np.float32)
    if stored.dtype.kind == "f":
        return values
    scale = variables.get(f"{name}_scale")
    if scale is None or scale.dtype.kind != "f" or scale.shape not in ((), stored.shape[:1]):
        raise CheckpointError(f"{name}: its integers come without a scale that fits; convert again")
    scale = scale.astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise CheckpointError(f"{name}: its scale is not positive and finite; convert again")
    return values / scale.reshape(scale.shape + (1,) * (stored.ndim - scale.ndim))


def load_ctranslate2(
    folder: str | Path,
) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer, GenerationConfig]:
    """Build transformers' Whisper from a CTranslate2 folder.

    Args:
        folder: Holds ``model.bin``, ``tokenizer.json`` and ``config.json``.

    Returns:
        The model (float32, on the CPU), its tokenizer and its generation settings.

    Raises:
        CheckpointError: A file is missing or damaged, or the variables are not Whisper's.
    """
    folder = Path(folder)
    path = folder / "model.bin"
    variables = read_model_bin(path)
    settings = read_json(folder / "config.json")
    tokenizer = load_tokenizer(folder)
    try:
        state = _state(variables)
        config = _config(variables, state, tokenizer)
        model = _model(config, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    try:
        generation = generation_config(tokenizer, config, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    model.generation_config = generation
    return model, tokenizer, generation


def _names(layers: dict[str, int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each CTranslate2 name and the transformers names of what it stacks along the first axis."""
    for side, count in layers.items():
        attentions = {("self_attention", "self_attn"): ["qkv", "o"]}
        if side == "decoder":
            attentions["attention", "encoder_attn"] = ["q", "kv", "o"]
        for index in range(count):
            theirs, ours = f"{side}/layer_{index}", f"model.{side}.layers.{index}"
            for (block, module), stacks in attentions.items():
                yield from _norm(f"{theirs}/{block}/layer_norm", f"{ours}.{module}_layer_norm")
                for number, stack in enumerate(stacks):
                    parts = ("out_proj",) if stack == "o" else tuple(f"{x}_proj" for x in stack)
                    yield from _affine(
                        f"{theirs}/{block}/linear_{number}",
                        *(f"{ours}.{module}.{p}" for p in parts),
                    )
            yield from _norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            yield from _affine(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            yield from _affine(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
        yield from _norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        yield f"{side}/position_encodings/encodings", (f"model.{side}.embed_positions.weight",)
    yield from _affine("encoder/conv1", "model.encoder.conv1")
    yield from _affine("encoder/conv2", "model.encoder.conv2")
    yield "decoder/embeddings/weight", ("model.decoder.embed_tokens.weight",)


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{theirs}/gamma", (f"{ours}.weight",)
    yield f"{theirs}/beta", (f"{ours}.bias",)


def _affine(theirs: str, *ours: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in ("weight", "bias"):
        yield f"{theirs}/{kind}", tuple(f"{module}.{kind}" for module in ours)


def _layers(variables: dict[str, np.ndarray], side: str) -> int:
    """Layers of a side: counted up to the first that is not there."""
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in variables:
        count += 1
    if not count:
        raise CheckpointError(f"it has no {side} layers; give a converted Whisper model")
    return count


def _state(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """transformers' state dict, float32; every variable is used or known to be a setting."""
    names = dict(_names({side: _layers(variables, side) for side in ("encoder", "decoder")}))
    missing = [name for name in names if name not in variables]
    if missing:
        raise CheckpointError(f"{len(missing)} variables are missing, first {missing[0]!r}")
    embedding, projection = "decoder/embeddings/weight", "decoder/projection/weight"
    known = {*names, projection}
    known |= {f"{name}_scale" for name in known}
    for name, array in variables.items():
        if name in known:
            continue
        if array.ndim or array.dtype.kind == "f":
            raise CheckpointError(f"the variable {name!r} is none of Whisper's")
        setting = name.rpartition("/")[2]
        if int(array) != _FIXED.get(setting, int(array)):
            raise CheckpointError(f"{name} is {int(array)}, which no Whisper has")
    output = variables.get(projection, variables[embedding])
    if output is not variables[embedding] and not np.array_equal(output, variables[embedding]):
        raise CheckpointError("its output projection differs from its embedding")
    state: dict[str, torch.Tensor] = {}
    for name, parts in names.items():
        values = dequantised(variables, name)
        if len(values) % len(parts):
            raise CheckpointError(f"{name!r} of {len(values)} rows is no stack of {len(parts)}")
        for part, rows in zip(parts, np.split(values, len(parts)), strict=True):
            if not part.endswith(".k_proj.bias"):
                state[part] = torch.tensor(rows)  # a copy: parts must not share memory
            elif rows.any():
                raise CheckpointError(f"{name!r} has a bias for the keys; Whisper has none")
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def _config(
    variables: dict[str, np.ndarray],
    state: dict[str, torch.Tensor],
    tokenizer: WhisperTokenizer,
) -> WhisperConfig:
    """The model's configuration, read off its tensors' shapes."""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if state[name].ndim != rank:
            raise CheckpointError(f"{name} has {state[name].ndim} dimensions instead of {rank}")
        return tuple(state[name].shape)

    vocabulary, dim = shape("model.decoder.embed_tokens.weight", 2)
    if len(tokenizer) > vocabulary:
        raise CheckpointError(
            f"it has {vocabulary} tokens, but tokenizer.json {len(tokenizer)}; use the tokenizer "
            "that belongs to the model"
        )
    ids = tokenizer.get_vocab()
    end = ids["<|endoftext|>"]
    heads = {}
    for side in ("encoder", "decoder"):
        stored = variables.get(f"{side}/num_heads")
        heads[side] = max(1, dim // 64) if stored is None else int(stored)
        if heads[side] < 1 or dim % heads[side]:
            raise CheckpointError(f"{heads[side]} heads do not divide the width {dim}")
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=dim,
        num_mel_bins=shape("model.encoder.conv1.weight", 3)[1],
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        encoder_attention_heads=heads["encoder"],
        decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=shape("model.encoder.layers.0.fc1.weight", 2)[0],
        decoder_ffn_dim=shape("model.decoder.layers.0.fc1.weight", 2)[0],
        max_source_positions=shape("model.encoder.embed_positions.weight", 2)[0],
        max_target_positions=shape("model.decoder.embed_positions.weight", 2)[0],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        # These two belong to the generation settings; the configuration's defaults are of base.
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _model(
    config: WhisperConfig, state: dict[str, torch.Tensor]
) -> WhisperForConditionalGeneration:
    """transformers' model around the tensors; their names and shapes must be just its own."""
    # On "meta" nothing is allocated or initialised: the tensors of the file become the parameters.
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        got = tuple(state[name].shape) if name in state else None
        if got != expected.get(name):
            raise CheckpointError(f"{name} has shape {got} instead of {expected.get(name)}")
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    return model.eval()
