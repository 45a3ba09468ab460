"""What a figure depends on besides the data: versions, commit, machine, seeds."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_SECRET_OF_URL = re.compile(r"(?<=://)[^/@\s]+@")


def run_record(command: Sequence[str], seeds: Mapping[str, int], **facts: Any) -> dict[str, Any]:
    """Describe a run for ``run.json``; nothing in it names a user or a host.

    Args:
        command: The arguments as given; the home folder in them becomes ``~``, and the user and
            password of an address are left out.
        seeds: What was seeded, and with which number, e.g. ``{"bootstrap": 0}``.
        facts: Further entries, e.g. ``normaliser="unicode"``.

    Returns:
        ``command``, ``started`` (UTC, ISO 8601), ``versions`` (Python and every installed
        package), ``commit`` and ``dirty`` (of the checkout this package runs from; None where it
        was installed otherwise), ``machine`` (see ``machine``), ``seeds``, and ``facts``.
    """
    commit, dirty = _commit()
    return {
        "command": [anonymous(argument) for argument in command],
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | _packages(),
        "commit": commit,
        "dirty": dirty,
        "machine": machine(),
        "seeds": dict(seeds),
    } | facts


def machine() -> dict[str, Any]:
    """Describe the machine.

    Returns:
        ``cpu`` (model), ``cores`` (that this process may use), ``memory`` (bytes),
        ``load_average`` (over 1, 5 and 15 minutes), ``os``, ``device`` (names of the GPUs).
    """
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": _answer("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines(),
    }


def anonymous(argument: str) -> str:
    """An argument without the home folder, users and passwords: results are shown to others."""
    return _SECRET_OF_URL.sub("", argument.replace(str(Path.home()), "~"))


def _packages() -> dict[str, str]:
    """Name and version of what is installed; of a package found twice, the one that is imported."""
    found: dict[str, str] = {}
    for package in distributions():
        if name := package.metadata["Name"]:  # a half-removed package has none
            found.setdefault(name, package.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model.group(1).strip() if model else platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """Commit of our own checkout and whether tracked files differ from it.

    A copy installed inside somebody's repository is no part of it: this file must be tracked.
    """
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    if not _answer(*git, "ls-files", "--error-unmatch", here.name):
        return None, None
    commit = _answer(*git, "rev-parse", "HEAD") or None
    return commit, bool(_answer(*git, "status", "--porcelain", "--untracked-files=no"))


def _answer(*command: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()
