"""Which library's format a folder or file is in, and which one an adapter goes out as."""

from __future__ import annotations

from pathlib import Path

from speechadapt.adapters.adapter import Adapter
from speechadapt.adapters.mms import MmsConfig
from speechadapt.backbones.base import Backbone
from speechadapt.errors import AdapterError
from speechadapt.interop.adapterhub import import_adapterhub
from speechadapt.interop.foreign import CONFIG_FILE, read_json
from speechadapt.interop.mms import export_mms, import_mms, is_mms
from speechadapt.interop.peft import HEAD_FILE, export_peft, import_peft


def import_adapter(path: Path, backbone: Backbone, name: str | None = None) -> tuple[Adapter, str]:
    """Read an adapter of another library.

    Args:
        path: Folder of PEFT or AdapterHub, or an ``adapter.<language>.safetensors`` of MMS.
        backbone: The base it was made for.
        name: How routes call it; None = as it is called there.

    Returns:
        The adapter, and the library's name.

    Raises:
        AdapterError: It is none of these, or cannot be expressed by ours.
    """
    if is_mms(path):
        return import_mms(path, backbone, name), "MMS"
    config = path / CONFIG_FILE
    if not config.is_file():
        raise AdapterError(
            f"{path}: no adapter of another library; give a folder with {CONFIG_FILE} (PEFT, "
            "AdapterHub), or a file called adapter.<language>.safetensors (MMS)"
        )
    if "peft_type" in read_json(config):
        return import_peft(path, backbone, name), "PEFT"
    return import_adapterhub(path, backbone, name), "AdapterHub"


def export_adapter(adapter: Adapter, backbone: Backbone, folder: Path) -> str:
    """Write an adapter for another library; returns which.

    Raises:
        ConfigError: No other library has its like.
    """
    if isinstance(adapter.config, MmsConfig):
        export_mms(adapter, backbone, folder)
        return "transformers (model.load_adapter)"
    export_peft(adapter, backbone, folder)
    if adapter.head is None:
        return "PEFT"
    return f"PEFT, its {adapter.head.kind} head in {HEAD_FILE}, which only import reads"
