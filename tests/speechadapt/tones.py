"""Tiny data sets of tones that can be learnt in seconds, and tiny bases in folders."""

import numpy as np
import soundfile
import torch
from tiny_backbones import tiny_backbone, write_vocabulary
from whisper_files import tiny_whisper, write_transformers

from speechadapt.cli.main import main
from speechadapt.data import Utterance, write_data_dir

LOW, HIGH = 300.0, 1500.0


def command(*arguments):
    """The exit code of a ``speechadapt`` command."""
    return main([str(argument) for argument in arguments])


def tone(hertz, seconds=0.3, level=0.3, seed=0):
    """A tone in a little noise, ``[samples]``."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (level * np.sin(2 * np.pi * hertz * time) + 0.01 * noise).astype(np.float32)


def write_tones(folder):
    """Low, high and both: ``utt2pitch`` names one, ``utt2tones`` all, ``utt2level`` how loud.

    Returns:
        The data directory.
    """
    kinds = {"low": (LOW,), "high": (HIGH,), "both": (LOW, HIGH)}
    utterances, tables = [], {"utt2pitch": [], "utt2tones": [], "utt2level": []}
    for index in range(9):
        kind, level = list(kinds)[index % 3], 0.1 * (1 + index // 3)
        name, path = f"{kind}-{index}", folder / f"{index}.wav"
        seconds = 0.3 + 0.02 * index
        wave = sum(tone(hertz, seconds, level, index) for hertz in kinds[kind])
        soundfile.write(path, wave, 16_000)
        utterances.append(Utterance(name, str(path), duration=seconds))
        tables["utt2pitch"].append(f"{name} {kind}")
        names = {LOW: "low", HIGH: "high"}
        tables["utt2tones"].append(" ".join([name, *(names[hertz] for hertz in kinds[kind])]))
        tables["utt2level"].append(f"{name} {level:.1f}")
    files = {name: "\n".join(sorted(lines)) + "\n" for name, lines in tables.items()}
    write_data_dir(folder / "data", utterances, files)
    return folder / "data"


def write_base(folder, name):
    """A tiny base, ``whisper`` or one of ``tiny_backbones``."""
    folder.mkdir(parents=True)
    if name == "whisper":
        write_transformers(
            folder,
            tiny_whisper(vocab_size=51865, max_source_positions=1500, max_target_positions=64),
        )
        return folder
    model = tiny_backbone(name).model.float()
    with torch.no_grad():
        model.save_pretrained(folder)
    write_vocabulary(folder)
    return folder
