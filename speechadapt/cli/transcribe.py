"""``speechadapt transcribe``: recordings to text, subtitles, JSON or a Kaldi ``text`` file."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechadapt.audio import SAMPLE_RATE, audio_duration, load_audio
from speechadapt.data import Utterance, load_utterances
from speechadapt.decoding.formats import SUFFIXES
from speechadapt.decoding.options import TASKS, DecodeOptions, language_code
from speechadapt.decoding.outputs import open_output
from speechadapt.decoding.transcriber import transcribe
from speechadapt.errors import AudioError, ConfigError
from speechadapt.model import SpeechModel, load
from speechadapt.route import Route, parse_route

# Also kinds that may turn out unreadable: those are then named, not passed over in silence.
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("aac", "aif", "aiff", "au", "caf", "flac", "g722", "m4a", "mka", "mp3", "mp4"),
        *("oga", "ogg", "opus", "sph", "w64", "wav", "webm", "wma"),
    )
)
_EXAMPLES = """examples:
  speechadapt transcribe talk.wav --base openai/whisper-base
  speechadapt transcribe clips/ --adapter exp/be/adapter --format json --out texts/
  speechadapt transcribe data/be/test --adapter exp/be/adapter --beam 5 --format kaldi \\
      --out exp/be/test/text
  speechadapt transcribe lecture.mp3 --word-timestamps --format srt --out lecture.srt

With several recordings, txt on standard output or in one file has the id before each text, and json
has one object on each line. Recordings over 28 s are cut where nobody speaks."""


def configure_transcribe(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Transcribe recordings with a frozen base and, where given, an adapter."
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="audio file, folder of audio files, Kaldi data dir or JSONL manifest",
    )
    add("--base", default="openai/whisper-base", help="hub id or folder (default %(default)s)")
    add("--adapter", action="append", default=[], metavar="DIR", help="load it; may be repeated")
    add("--route", help="adapter to use, or none (default: the only adapter loaded, else none)")
    add(
        "--language",
        help="Whisper's code, or auto to detect (default: that of "
        "utt2lang, else the adapter's, else auto)",
    )
    add("--task", default="transcribe", choices=TASKS, help="translate = into English")
    add("--beam", type=int, default=1, metavar="N", help="beam size (default 1: greedy)")
    add("--no-fallback", action="store_true", help="never try again at a higher temperature")
    add("--max-tokens", type=int, metavar="N", help="of one window (default: 30 a second + 16)")
    add("--seed", type=int, default=0, help="of sampling in the fallback (default 0)")
    add(
        "--context",
        default="auto",
        metavar="full|SECONDS",
        help="silence after each recording: seconds, full = fill up to 30 s "
        "(default: what the route was trained with)",
    )
    add("--batch-seconds", type=float, default=60.0, metavar="S", help="of a batch (default 60)")
    add("--timestamps", action="store_true", help="let Whisper write the times of segments")
    add(
        "--word-timestamps",
        action="store_true",
        help="times of words; srt and vtt have them unless --timestamps is given",
    )
    add("--format", default="txt", choices=list(SUFFIXES), help="(default %(default)s)")
    add("--out", help="file or folder (default: standard output)")
    add("--skip-bad", action="store_true", help="leave unreadable recordings out and count them")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, … (default cpu)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry the command out.

    Raises:
        SpeechAdaptError: Anything the user can mend. What was finished before is written.
    """
    trailing_silence = None if args.context == "auto" else _context(args.context)
    options = _options(args, None)  # wrong settings are told before anything is loaded
    utterances = find_recordings(args.inputs)
    out = None if args.out is None else Path(args.out)
    if out is not None and args.out.endswith(os.sep):
        out.mkdir(parents=True, exist_ok=True)
    output = open_output(args.format, out, [utterance.id for utterance in utterances])

    model = load(args.base, args.adapter, device=args.device)
    route = _route(args.route, model)
    if args.context == "auto":
        trailing_silence = model.trailing_silence([route])
    options = _options(args, model.language(route))

    languages = {u.id: language_code(u.language) for u in utterances if u.language}
    sound = _Sound(utterances, skip_bad=args.skip_bad)
    count, began = 0, time.monotonic()
    try:
        with tqdm(total=sound.total, unit="s", desc="transcribe", disable=None) as bar:
            for transcript in transcribe(
                model,
                sound,
                route=route,
                options=options,
                trailing_silence=trailing_silence,
                languages=None if args.language else languages,
                batch_seconds=args.batch_seconds,
                progress=lambda seconds: bar.update(round(seconds, 1)),
            ):
                output.add(transcript)
                count += 1
    finally:
        output.close()
    took = time.monotonic() - began
    factor = f", real-time factor {took / sound.seconds:.3f}" if sound.seconds else ""
    print(f"{count} recordings, {sound.seconds:.1f} s in {took:.1f} s{factor}", file=sys.stderr)
    if sound.error is not None:
        raise sound.error
    if args.skip_bad:
        print(f"{sound.bad} of {len(utterances)} recordings left out as bad", file=sys.stderr)
    return 0


class _Sound:
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
                tqdm.write(f"left out: {error}", file=sys.stderr)
                continue
            self.seconds += len(samples) / SAMPLE_RATE
            yield utterance.id, samples


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
        if path.suffix == ".jsonl" or (path / "wav.scp").is_file():
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


def _route(text: str | None, model: SpeechModel) -> Route:
    """The route asked for, checked; by default the only adapter there is."""
    if text is None:
        names = [adapter.name for adapter in model.bank]
        if len(names) > 1:
            raise ConfigError(f"--route is missing: choose one of {', '.join(names)}, or none")
        return names[0] if names else None
    route = parse_route(text)
    model.bank.call([route])
    return route


def _options(args: argparse.Namespace, adapter_language: str | None) -> DecodeOptions:
    language = args.language or adapter_language
    subtitles = args.format in ("srt", "vtt")
    return DecodeOptions(
        language=None if language is None or language.lower() == "auto" else language,
        task=args.task,
        beam_size=args.beam,
        temperatures=(0.0,) if args.no_fallback else DecodeOptions.temperatures,
        max_tokens=args.max_tokens,
        timestamps=args.timestamps,
        word_timestamps=args.word_timestamps or (subtitles and not args.timestamps),
        seed=args.seed,
    )


def _context(text: str) -> float | None:
    if text == "full":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 30:
        raise ConfigError(f"--context {text!r}: give full, auto, or seconds from 0 to 30")
    return seconds
