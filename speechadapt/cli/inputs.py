"""What every command that reads recordings shares: which ones, their samples, their route."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechadapt.audio import SAMPLE_RATE, audio_duration, load_audio
from speechadapt.data import Utterance, load_utterances
from speechadapt.data.labels import read_labels
from speechadapt.errors import AudioError, ConfigError
from speechadapt.model import SpeechModel
from speechadapt.progress import say
from speechadapt.route import Route, parse_route

# Also kinds that may turn out unreadable: those are then named, not passed over in silence.
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("aac", "aif", "aiff", "au", "caf", "flac", "g722", "m4a", "mka", "mp3", "mp4"),
        *("oga", "ogg", "opus", "sph", "w64", "wav", "webm", "wma"),
    )
)


def add_inputs(parser: argparse.ArgumentParser, base: dict[str, Any]) -> None:
    """The options that say what is read, and by what.

    Args:
        parser: Where to.
        base: Further settings of ``--base``, such as its default.
    """
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="audio file, folder of audio files, Kaldi data dir or JSONL manifest",
    )
    add("--base", **base)
    text = "folder, or owner/name on the hub; may be repeated"
    add("--adapter", action="append", default=[], help=text)
    add(
        "--route", help="adapter to use, a+b, or none (default: the only adapter loaded, else none)"
    )
    add(
        "--routes",
        metavar="TABLE",
        help="table of the data dirs (field of a manifest) with a route for each utterance, "
        "such as utt2lang; a batch may mix them",
    )
    add("--skip-bad", action="store_true", help="leave unreadable recordings out and count them")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, … (default cpu)")


class Sound:
    """Samples of each utterance in turn; stops before the first bad one, or leaves it out."""

    def __init__(self, utterances: Sequence[Utterance], *, skip_bad: bool):
        self._utterances, self._skip_bad = utterances, skip_bad
        self.seconds = 0.0
        self.bad = 0
        self.error: AudioError | None = None

    @property
    def total(self) -> float:
        """Seconds of all together, from what is known without reading the sound."""
        return round(math.fsum(map(_seconds, self._utterances)), 1)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        for utterance in self._utterances:
            try:
                samples = load_audio(utterance.audio, utterance.start, utterance.end)
            except AudioError as error:
                if not self._skip_bad:
                    # Not raised here: what came before is still in a batch and would be lost.
                    self.error = error
                    return
                self.bad += 1
                say(f"left out: {error}\n", sys.stderr)
                continue
            self.seconds += len(samples) / SAMPLE_RATE
            yield utterance.id, samples

    def report(self, count: int, took: float) -> None:
        """Say on stderr what was done, and raise what stopped it.

        Args:
            count: Recordings that are finished.
            took: Seconds it took.
        """
        factor = f", real-time factor {took / self.seconds:.3f}" if self.seconds else ""
        print(f"{count} recordings, {self.seconds:.1f} s in {took:.1f} s{factor}", file=sys.stderr)
        if self.error is not None:
            raise self.error
        if self._skip_bad:
            total = len(self._utterances)
            print(f"{self.bad} of {total} recordings left out as bad", file=sys.stderr)


def _seconds(utterance: Utterance) -> float:
    if utterance.duration is not None:
        return utterance.duration
    if utterance.end is not None:
        return utterance.end - (utterance.start or 0.0)
    if utterance.audio.rstrip().endswith("|"):
        return 0.0  # only running the command would tell
    try:
        return audio_duration(utterance.audio) - (utterance.start or 0.0)
    except AudioError:
        return 0.0  # reported when its turn comes


def find_recordings(inputs: Iterable[str]) -> list[Utterance]:
    """Every recording the user named, in order.

    Files get their stem as id; where two have the same, as much of the path as tells them apart.

    Raises:
        AudioError: A path does not exist, or a folder has no audio.
        DataError: A data dir or manifest breaks its format, or two utterances have one id.
    """
    found: list[Utterance | Path] = []
    for item in inputs:
        path = Path(item)
        if is_data_set(item):
            found += load_utterances(item)
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not files:
                raise AudioError(f"{item}: no audio file in this folder; give files or a data dir")
            found += files
        elif path.is_file():
            found.append(path)
        else:
            raise AudioError(f"{item}: there is no such file or folder")
    names = iter(_names([path for path in found if isinstance(path, Path)]))
    utterances = [
        Utterance(next(names), str(item)) if isinstance(item, Path) else item for item in found
    ]
    counts = Counter(utterance.id for utterance in utterances)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(f"{twice[0]}: named twice among the inputs; give each recording once")
    return utterances


def is_data_set(item: str) -> bool:
    """Whether an input is a Kaldi data dir or a manifest, rather than recordings as such."""
    path = Path(item)
    return path.suffix == ".jsonl" or (path / "wav.scp").is_file()


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest of stem, path without extension and whole path that is unique for each."""
    if not paths:
        return []
    root = os.path.commonpath([path.parent.absolute() for path in paths])
    relative = [path.absolute().relative_to(root) for path in paths]
    choices = [
        [path.stem for path in relative],
        [path.with_suffix("").as_posix() for path in relative],
        [path.as_posix() for path in relative],
    ]
    counts = [Counter(names) for names in choices]
    return [
        "_".join(
            next((name for name, n in zip(row, counts, strict=True) if n[name] == 1), row[-1])
            .replace("/", "-")
            .split()
        )
        for row in zip(*choices, strict=True)
    ]


def choose_routes(
    args: argparse.Namespace, model: SpeechModel, utterances: Sequence[Utterance]
) -> dict[str, Route]:
    """The checked route of each recording by its id, as ``--route`` or ``--routes`` says.

    Raises:
        ConfigError: Both are given, or an input is no data set and has no table.
        DataError: There is no such table, or it does not speak of each utterance.
        RouteError: A route cannot be read, or names an adapter that is not loaded.
    """
    if args.routes is None:
        route = _the_route(args.route, model)
        return {utterance.id: route for utterance in utterances}
    if args.route is not None:
        raise ConfigError("--route and --routes: give one of them")
    texts: dict[str, str] = {}
    for item in args.inputs:
        if not is_data_set(item):
            raise ConfigError(f"--routes {args.routes}: {item} is no data dir or manifest")
        for name, values in read_labels(item, args.routes, load_utterances(item)).items():
            texts[name] = " ".join(values)
    parsed = {text: parse_route(text) for text in dict.fromkeys(texts.values())}
    model.bank.call([*parsed.values()])  # what is not loaded is told before anything is read
    return {name: parsed[text] for name, text in texts.items()}


def _the_route(text: str | None, model: SpeechModel) -> Route:
    """The route asked for, checked; by default the only adapter there is."""
    if text is None:
        names = [adapter.name for adapter in model.bank]
        if len(names) > 1:
            raise ConfigError(
                f"--route or --routes is missing: choose one of {', '.join(names)}, none, or a "
                "table with a route for each utterance"
            )
        return names[0] if names else None
    route = parse_route(text)
    model.bank.call([route])
    return route
