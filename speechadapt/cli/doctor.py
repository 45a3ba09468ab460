"""``speechadapt doctor``: what this machine has, and which path each operator takes on it."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata

import torch

import speechadapt
from speechadapt.device import usable
from speechadapt.errors import ConfigError
from speechadapt.optional import torchaudio
from speechadapt_kernels.catalogue import OPERATORS
from speechadapt_kernels.dispatch import VARIABLE, choice, explain
from speechadapt_kernels.plan import cpu_plan

_WIDEST = max(len(operator.name) for operator in OPERATORS)
_LIBRARIES = ("torch", "transformers", "torchaudio", "triton", "librosa", "soundfile", "peft")


def configure_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Versions, devices, and for each operator whether it runs as a Triton kernel or in torch, "
        "and why."
    )
    parser.epilog = (
        f"examples:\n  speechadapt doctor\n  {VARIABLE}=triton speechadapt doctor --device cuda:1"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", help="this one only (default: the CPU and every GPU)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry the command out.

    Raises:
        ConfigError: The device cannot be used, or the environment asks for a path there is not.
    """
    print(f"speechadapt {speechadapt.__version__}, Python {platform.python_version()}")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, torch uses {torch.get_num_threads()}")
    for name in _LIBRARIES:
        print(f"  {name} {_version(name)}")
    try:
        print(f"{VARIABLE}={choice()}")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    for device in [usable(args.device)] if args.device else [torch.device("cpu"), *gpus]:
        print(f"\n{_described(device)}")
        for line in _paths(device):
            print(f"  {line}")
    return 0


def _version(name: str) -> str:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
    if name == "torchaudio" and torchaudio() is None:
        return f"{version} does not import beside this torch; it is done without"
    return version


def _described(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    gigabytes = properties.total_memory / 2**30
    return (
        f"{device}: {properties.name}, sm_{properties.major}{properties.minor}, {gigabytes:.0f} GiB"
    )


def _paths(device: torch.device) -> list[str]:
    """A line for each operator and path it takes there."""
    lines: list[str] = []
    for operator in OPERATORS:
        taken: dict[tuple[str, str], list[str]] = {}
        for dtype in operator.dtypes:
            try:
                path = explain(device, dtype)
            except ValueError as error:
                path = "refused", str(error)
            taken.setdefault(path, []).append(str(dtype).removeprefix("torch."))
        lines.extend(
            f"{operator.name:{_WIDEST}}  {path:7}  {', '.join(dtypes)}: {why}"
            for (path, why), dtypes in taken.items()
        )
    if device.type == "cpu":
        plan = cpu_plan()
        lines.append(
            "several adapters in a batch: in batched products; one after the other from "
            f"{plan.apart_from_bytes / 1e6:.1f} MB of states on; operators: in blocks of "
            f"{plan.block_bytes / 1e6:.1f} MB (plan cpu)"
        )
    return lines
