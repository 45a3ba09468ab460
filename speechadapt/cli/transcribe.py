"""``speechadapt transcribe``: recordings to text, subtitles, JSON or a Kaldi ``text`` file."""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

from speechadapt.cli.inputs import Sound, add_inputs, choose_routes, find_recordings
from speechadapt.decoding.formats import SUFFIXES
from speechadapt.decoding.options import TASKS, DecodeOptions, language_code
from speechadapt.decoding.outputs import open_output
from speechadapt.decoding.transcriber import transcribe
from speechadapt.errors import ConfigError
from speechadapt.model import load
from speechadapt.progress import progress

_EXAMPLES = """examples:
  speechadapt transcribe talk.wav --base openai/whisper-base
  speechadapt transcribe clips/ --adapter exp/be/adapter --format json --out texts/
  speechadapt transcribe data/be/test --adapter exp/be/adapter --beam 5 --format kaldi \\
      --out exp/be/test/text
  speechadapt transcribe data/all --adapter exp/be/adapter --adapter exp/ro/adapter \\
      --routes utt2lang --format kaldi --out exp/all/text
  speechadapt transcribe lecture.mp3 --word-timestamps --format srt --out lecture.srt

With several recordings, txt on standard output or in one file has the id before each text, and json
has one object on each line. Recordings over 28 s are cut where nobody speaks."""


def configure_transcribe(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Transcribe recordings with a frozen base and, where given, an adapter."
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    base = {"default": "openai/whisper-base", "help": "hub id or folder (default %(default)s)"}
    add_inputs(parser, base)
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry the command out.

    Raises:
        SpeechAdaptError: Anything the user can mend. What was finished before is written.
    """
    trailing_silence = None if args.context == "auto" else _context(args.context)
    options = _options(args)  # wrong settings are told before anything is loaded
    utterances = find_recordings(args.inputs)
    out = None if args.out is None else Path(args.out)
    if out is not None and args.out.endswith(os.sep):
        out.mkdir(parents=True, exist_ok=True)
    output = open_output(args.format, out, [utterance.id for utterance in utterances])

    model = load(args.base, args.adapter, device=args.device)
    routes = choose_routes(args, model, utterances)
    if args.context == "auto":
        trailing_silence = model.trailing_silence([*dict.fromkeys(routes.values())])
    own = {u.id: u.language or model.language(routes[u.id]) for u in utterances}
    languages = {name: language_code(language) for name, language in own.items() if language}
    sound = Sound(utterances, skip_bad=args.skip_bad)
    count, began = 0, time.monotonic()
    try:
        with progress(total=sound.total, unit="s", desc="transcribe", disable=None) as bar:
            for transcript in transcribe(
                model,
                sound,
                route=None,
                routes=routes,
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
    sound.report(count, time.monotonic() - began)
    return 0


def _options(args: argparse.Namespace) -> DecodeOptions:
    language = args.language
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
