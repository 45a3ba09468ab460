"""``speechadapt classify``: recordings to labels, or to a value."""

from __future__ import annotations

import argparse
import json
import sys
import time

from speechadapt.cli.inputs import Sound, add_inputs, choose_routes, find_recordings
from speechadapt.decoding.classify import Labels, Score, classify
from speechadapt.errors import ConfigError
from speechadapt.model import load
from speechadapt.progress import progress, say

_EXAMPLES = """examples:
  speechadapt classify clips/ --base MIT/ast-finetuned-audioset-10-10-0.4593 --top 5
  speechadapt classify data/noise/test --base ./ast --format json > labels.jsonl
  speechadapt classify clips/ --base openai/whisper-base --adapter exp/languages/adapter
  speechadapt classify clips/ --base facebook/wav2vec2-base --adapter exp/mos/adapter
  speechadapt classify data/all --base ./ast --adapter exp/birds/adapter \\
      --adapter exp/frogs/adapter --routes utt2place

txt has the id, then label and probability by turns, separated by tabs; with an adapter that was
trained on values (--objective regress) the id and the value."""


def configure_classify(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Label or value recordings with a frozen base and, where given, an adapter."
    )
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_inputs(parser, {"required": True, "help": "hub id or folder"})
    add = parser.add_argument
    add("--top", type=int, default=1, metavar="N", help="labels of each recording (default 1)")
    add("--batch-size", type=int, default=8, metavar="N", help="recordings at once (default 8)")
    add("--format", default="txt", choices=["txt", "json"], help="(default %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry the command out.

    Raises:
        SpeechAdaptError: Anything the user can mend. What was finished before is printed.
    """
    if args.top < 1:
        raise ConfigError(f"--top {args.top}: give 1 or more")
    utterances = find_recordings(args.inputs)
    model = load(args.base, args.adapter, device=args.device)
    routes = choose_routes(args, model, utterances)
    sound = Sound(utterances, skip_bad=args.skip_bad)
    count, began = 0, time.monotonic()
    with progress(total=sound.total, unit="s", desc="classify", disable=None) as bar:
        for found in classify(
            model,
            sound,
            routes=routes,
            trailing_silence=model.trailing_silence([*dict.fromkeys(routes.values())]),
            batch_size=args.batch_size,
            progress=lambda seconds: bar.update(round(seconds, 1)),
        ):
            say(_line(found, args.format, args.top) + "\n", sys.stdout)
            count += 1
    sound.report(count, time.monotonic() - began)
    return 0


def _line(labels: Labels | Score, kind: str, top: int) -> str:
    if isinstance(labels, Score):
        if kind == "json":
            said = {labels.name: round(labels.value, 6)}
            return json.dumps(
                {"id": labels.id, "seconds": round(labels.seconds, 3), "values": said}
            )
        return f"{labels.id}\t{labels.value:.4f}"
    best = dict(list(labels.probabilities.items())[:top])
    if kind == "json":
        rounded = {label: round(probability, 6) for label, probability in best.items()}
        values = {"id": labels.id, "seconds": round(labels.seconds, 3), "labels": rounded}
        return json.dumps(values, ensure_ascii=False)
    cells = [cell for label, p in best.items() for cell in (label, f"{p:.4f}")]
    return "\t".join((labels.id, *cells))
