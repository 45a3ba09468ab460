"""The Hugging Face hub: whether it can be asked, and what its cache has."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants as hub
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import get_session, validate_repo_id

from speechadapt.backbones.tokens import first_line

HUB_SECONDS = 5.0  # the longest wait for the hub's first answer


def is_hub_id(name: str) -> bool:
    """Whether a name may be a repository on the hub: ``owner/model``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def snapshot(
    name: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path | None:
    """The hub's files of a repository; None if only the local cache was asked and has none of it.

    Args:
        name: Of the repository.
        files: Patterns of those that are wanted.
        revision: Branch, tag or commit; None = main.
        local_files_only: Ask the cache alone.
    """
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(files),
                local_files_only=local_files_only,
                etag_timeout=HUB_SECONDS,
            )
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return None
        raise


def hub_problem() -> str:
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
