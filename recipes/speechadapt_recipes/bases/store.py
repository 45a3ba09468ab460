"""A trained small base as it is handed on: half precision, and a card that tells its origin."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from speechadapt.backbones.loading import load_backbone
from speechadapt.data import read_data_dir
from speechadapt.errors import CheckpointError
from speechadapt.files import replacing
from speechadapt_recipes.bases.pool import licences
from speechadapt_recipes.runs import read_json

WEIGHTS = "model.safetensors"
MOST_BYTES = 8_000_000
_DESCRIPTIONS = ("vocab.json", "tokenizer_config.json", "preprocessor_config.json")

_CARD = """# {name}: a small {kind} base

{parameters:,} parameters, trained from nothing on the data below. It is a stand-in for figures and
tests where no pretrained checkpoint of this architecture can be had, and no more than that: it has
heard {minutes} minutes of few voices (synthetic ones where the list says so), so it knows those
voices as much as their languages. For anything else, use a pretrained checkpoint.

- data: {data}
- licences of the data:
{licences}
- made with: {note}
- command: `{command}`
- steps: {steps}, kept the one with the best development set, {best_step}; {seconds:.0f} s

## Development set

{results}"""


def store(
    run: Path,
    init: Path,
    out: Path,
    data: Sequence[Path],
    results: str,
    command: str,
    note: str,
    most_bytes: int = MOST_BYTES,
) -> int:
    """Write a trained base in float16; returns the bytes of its weights.

    Args:
        run: Folder of ``speechadapt finetune``, finished.
        init: The random base it began with: has the files that describe vocabulary and features.
        out: Where to; replaced if it is there.
        data: Training directories, for the card.
        results: Table of the development set, for the card.
        command: What made it, for the card.
        note: Commit and machine, for the card.
        most_bytes: What the weights may take.

    Raises:
        EvalError: The run is not finished.
        CheckpointError: Its weights take more, or do not load again.
    """
    result = read_json(run / "result.json")
    model = run / "model"
    with replacing(out, "config.json", WEIGHTS, "README.md", *_DESCRIPTIONS) as temporary:
        temporary.mkdir()
        for name in _DESCRIPTIONS:
            if (init / name).is_file():
                shutil.copyfile(init / name, temporary / name)
        config = {**read_json(model / "config.json"), "dtype": "float16"}
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        (temporary / "config.json").write_text(text + "\n", encoding="utf-8")
        tensors = safetensors.torch.load_file(model / WEIGHTS)
        halves = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        if broken := [name for name, half in halves.items() if not half.isfinite().all()]:
            raise CheckpointError(f"{model}: {broken[0]} is too large for float16; train again")
        safetensors.torch.save_file(halves, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)  # safetensors keeps what it writes to its user
        size = (temporary / WEIGHTS).stat().st_size
        if size > most_bytes:
            raise CheckpointError(
                f"{model}: takes {size:,} bytes in float16, {most_bytes:,} are allowed; train a "
                "smaller one"
            )
        backbone = load_backbone(str(temporary), offline=True)  # what is handed on must load
        utterances = [utterance for folder in data for utterance in read_data_dir(folder)]
        seconds = sum(utterance.duration or 0.0 for utterance in utterances)
        card = _CARD.format(
            name=out.name,
            kind=config["model_type"],
            parameters=backbone.parameter_count,
            minutes=round(seconds / 60),
            data=f"{', '.join(map(str, data))}: {len(utterances)} clips",
            licences=re.sub("^", "  - ", licences(data).strip(), flags=re.MULTILINE),
            note=note,
            command=command,
            steps=result["steps"],
            best_step=result["best_step"],
            seconds=result["seconds"],
            results=results.strip() + "\n",
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return size
