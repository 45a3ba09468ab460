"""``speechadapt-eval listening-page``."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechadapt_eval.errors import EvalError
from speechadapt_eval.listening.page import read_sounds, render_test
from speechadapt_eval.listening.ratings import SCALES, scale_of
from speechadapt_eval.outputs import write_text

EXAMPLES = """
examples:
  speechadapt-eval listening-page sounds.csv test.html
  speechadapt-eval listening-page --scale mushra --title "Codecs" sounds.csv test.html

SOUNDS has a header and the columns clip,system,audio and, where they apply, kind (test, gold, trap,
anchor, ref) and expected (the right score of a gold clip or trap). Sound files are looked for in
its folder. Raters open the page, listen, and give back the CSV file that it offers for download;
speechadapt-eval ratings reads these files.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``listening-page``."""
    parser.add_argument("sounds", type=Path, metavar="SOUNDS")
    parser.add_argument("page", type=Path, metavar="PAGE")
    parser.add_argument(
        "--scale",
        choices=list(SCALES),
        default="acr",
        help="acr: one sound, a score from 1 to 5 (default); mushra: all versions of a clip "
        "against a reference, 0 to 100",
    )
    parser.add_argument("--title", default="Listening test", help="default: Listening test")
    parser.add_argument("--question", default="", help="asked above each sound")
    parser.add_argument(
        "--intro", type=Path, metavar="FILE", help="text that raters read first, instead of ours"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    scale = scale_of(args.scale)
    sounds = read_sounds(args.sounds, scale)
    intro = ""
    if args.intro:
        try:
            intro = args.intro.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvalError(f"cannot read {args.intro}: {error}") from error
    page = render_test(sounds, scale, title=args.title, intro=intro, question=args.question)
    write_text(args.page, page)
    clips, systems = {s.clip for s in sounds}, {s.system for s in sounds if s.system}
    seconds = sum(sound.seconds for sound in sounds)
    return (
        f"{args.page}: {len(sounds)} sounds, {len(clips)} clips, {len(systems)} systems, "
        f"{seconds / 60:.1f} minutes of sound, {len(page) / 1e6:.1f} MB"
    )
