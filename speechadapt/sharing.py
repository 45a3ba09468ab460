"""Adapters on the Hugging Face hub: one repository each, with the three files of its folder."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from speechadapt.backbones.tokens import first_line
from speechadapt.errors import AdapterError, FetchError
from speechadapt.files import replacing
from speechadapt.hub import hub_problem, is_hub_id, snapshot
from speechadapt.store import (
    CARD_FILE,
    CONFIG_FILE,
    FILES,
    TENSOR_FILE,
    read_description,
    read_tensors,
)

_PICKLES = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n\s*", re.DOTALL)  # of an adapter that was pulled


def find_adapter(name: str | Path, *, offline: bool = False) -> Path:
    """The folder that holds an adapter: a local one, one of the hub's cache, or the hub's.

    Args:
        name: Folder, or ``owner/name`` on the hub, ``@`` and a branch, tag or commit behind it if
            it is not the newest that is wanted.
        offline: Use only what is on this machine.

    Raises:
        FetchError: It is neither here nor to be had from the hub.
        AdapterError: The repository holds something else.
    """
    folder = Path(name).expanduser()
    repository, revision = _split(str(name))
    if folder.exists() or not is_hub_id(repository):
        return folder  # if there is none, reading it says so
    cached = snapshot(repository, FILES, revision=revision, local_files_only=True)
    if cached and all((cached / file).is_file() for file in FILES):
        print(f"{name}: adapter from the local hub cache ({cached})", file=sys.stderr)
        return cached
    if offline:
        raise FetchError(f"{name}: neither a folder nor in the local hub cache; fetch it online")
    try:
        cached, _ = _download(repository, revision)
    except FetchError as error:
        problem = str(error).removeprefix(f"{repository}: ")
        raise FetchError(f"{name}: no folder here, and not from the hub: {problem}") from None
    print(f"{name}: adapter from the hub ({cached})", file=sys.stderr)
    return cached


def pull(name: str, folder: Path) -> str:
    """Bring an adapter from the hub into a folder, whole or not at all.

    Args:
        name: ``owner/name``, ``@`` and a branch, tag or commit behind it if wanted.
        folder: Where to; an older one is replaced.

    Returns:
        The commit that was brought.

    Raises:
        FetchError: The hub does not give it.
        AdapterError: The repository holds something else, or something damaged.
        OutputError: The folder holds something else, or cannot be written.
    """
    repository, revision = _split(name)
    _check_id(repository)
    cached, commit = _download(repository, revision)
    _check(cached)
    with replacing(folder, *FILES) as temporary:
        temporary.mkdir()
        for file in FILES:
            shutil.copyfile(cached / file, temporary / file)
    return commit


def push(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    licence: str | None = None,
) -> str:
    """Upload an adapter's three files as one commit; the repository is made if there is none.

    Args:
        folder: Of the adapter.
        repository: ``owner/name``.
        private: Whether a new repository is hidden from others.
        message: Of the commit.
        licence: The adapter's own, as the hub calls it, such as ``cc-by-4.0``.

    Returns:
        Address of the commit.

    Raises:
        AdapterError: The folder holds no whole adapter.
        FetchError: The hub does not take it.
    """
    _check_id(repository)
    description = _check(folder)
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    text = front_matter(description, licence) + _FRONT_MATTER.sub("", text)
    contents: dict[str, str | bytes] = {
        CONFIG_FILE: str(folder / CONFIG_FILE),
        TENSOR_FILE: str(folder / TENSOR_FILE),
        CARD_FILE: text.encode(),
    }
    with _asking(repository):
        hub = HfApi()
        hub.create_repo(repository, private=private or None, exist_ok=True)
        done = hub.create_commit(
            repository,
            [CommitOperationAdd(file, content) for file, content in contents.items()],
            commit_message=message or f"Adapter {description['name']}",
        )
    return str(done.commit_url)


def front_matter(description: dict[str, Any], licence: str | None = None) -> str:
    """What the hub reads of a card, as YAML between dashes."""
    info = description["info"]
    values: dict[str, Any] = {"library_name": "speechadapt"}
    if is_hub_id(str(info.get("base"))):
        values |= {"base_model": info["base"], "base_model_relation": "adapter"}
    if re.fullmatch("[a-z]{2,3}", str(info.get("language"))):
        values["language"] = [info["language"]]
    if licence:
        values["license"] = licence
    tags = ("speechadapt", description["config"].get("method"), info.get("kind"))
    values["tags"] = [str(tag) for tag in tags if tag]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n\n"


def _split(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _check_id(repository: str) -> None:
    if not is_hub_id(repository):
        raise FetchError(f"{repository}: no name of a hub repository, expected owner/name")


def _check(folder: Path) -> dict[str, Any]:
    """The description of a folder that holds the three files, each readable."""
    description = read_description(folder)
    read_tensors(folder / TENSOR_FILE, description.get("bits"))
    if not (folder / CARD_FILE).is_file():
        raise AdapterError(f"{folder / CARD_FILE}: missing; save the adapter again")
    return description


def _download(repository: str, revision: str | None) -> tuple[Path, str]:
    """The cache's folder with the three files, and the commit."""
    with _asking(repository, revision):
        info = HfApi().model_info(repository, revision=revision)
        _check_listing(repository, [file.rfilename for file in info.siblings or ()])
        folder = snapshot(repository, FILES, revision=revision)
    assert folder is not None and info.sha is not None
    return folder, info.sha


def _check_listing(repository: str, files: Sequence[str]) -> None:
    for file in files:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file:
            raise AdapterError(f"{repository}: its file {file!r} climbs out of the folder")
        if path.suffix in _PICKLES:
            raise AdapterError(
                f"{repository}: holds {file}, a pickle, which can run code when it is read; "
                "adapters of speechadapt have none"
            )
    if missing := [file for file in FILES if file not in files]:
        raise AdapterError(
            f"{repository}: has no {missing[0]}, so it is no adapter of speechadapt; "
            "`speechadapt adapters import` reads downloaded folders of other libraries"
        )


@contextmanager
def _asking(repository: str, revision: str | None = None) -> Iterator[None]:
    """What goes wrong between here and the hub, in one sentence."""
    if problem := hub_problem():
        raise FetchError(f"{repository}: the hub was not asked: {problem}")
    try:
        yield
    except AdapterError:
        raise
    except RepositoryNotFoundError:
        raise FetchError(
            f"{repository}: the hub has no such repository, or a private one; check the name, or "
            "log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise FetchError(f"{repository}: has no branch, tag or commit {revision!r}") from None
    # Of the hub, the HTTP library, the disk, or the client's own checks.
    except Exception as error:
        answer = error.response if isinstance(error, HfHubHTTPError) else None
        if answer is not None and answer.status_code in (401, 403):
            raise FetchError(
                f"{repository}: the hub does not accept your token for this; log in with "
                "`hf auth login` and a token that may do it"
            ) from None
        raise FetchError(
            f"{repository}: the hub, or the way to it, failed ({first_line(error)}); the same "
            "command goes on from where it stopped"
        ) from None
