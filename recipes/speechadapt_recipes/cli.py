"""The ``speechadapt-recipes`` command: prepare corpora, run the demo, write result tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechadapt.errors import FetchError, SpeechAdaptError
from speechadapt_eval.errors import EvalError
from speechadapt_recipes.bases.commands import add_commands as add_bases

if TYPE_CHECKING:
    from speechadapt_recipes.corpora.common import Sizes

_EXAMPLES = """examples:
  speechadapt-recipes demo --out demo
  speechadapt-recipes tuxpaint --out data --languages be ro
  speechadapt-recipes tuxpaint --out data --archives ~/debs   # packages fetched by hand
  speechadapt-recipes asterisk --out data/asterisk --languages it
  speechadapt-recipes noise --out data/noise"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="speechadapt-recipes",
        description="Corpora, demo and result tables.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a frozen Whisper learns Belarusian")
    _add_places(demo)
    demo.add_argument("--quick", action="store_true", help="a few steps and recordings only")
    demo.set_defaults(run=_demo)

    tuxpaint = commands.add_parser("tuxpaint", help="Tux Paint stamps: eight languages")
    _add_places(tuxpaint)
    tuxpaint.add_argument("--languages", nargs="+", metavar="CODE", help="default: all eight")
    tuxpaint.add_argument("--fetch-only", action="store_true", help="fetch and unpack, no more")
    tuxpaint.add_argument("--archive", metavar="NAME", help="file name of another Debian release")
    tuxpaint.add_argument("--archive-sha256", metavar="HEX", help="and its SHA-256")
    tuxpaint.set_defaults(run=_tuxpaint)

    asterisk = commands.add_parser("asterisk", help="telephone prompts: en es fr it ru")
    _add_places(asterisk)
    asterisk.add_argument("--languages", nargs="+", metavar="CODE", help="default: all five")
    asterisk.set_defaults(run=_asterisk)

    music = commands.add_parser("music", help="music on hold, for mixtures")
    _add_places(music)
    music.set_defaults(run=_music)

    noise = commands.add_parser("noise", help="generated noise and sound effects, for mixtures")
    _add_places(noise)
    noise.add_argument("--generated-only", action="store_true", help="no sound effects, no fetch")
    noise.set_defaults(run=_noise)

    results = commands.add_parser("results", help="table of a finished egs/tuxpaint/asr1")
    results.add_argument("--data", type=Path, default=Path("data"), help="(default data)")
    results.add_argument("--exp", type=Path, default=Path("exp"), help="(default exp)")
    results.add_argument("--languages", nargs="+", metavar="CODE", help="default: all eight")
    results.add_argument("--pack", type=Path, metavar="DIR", help="store the adapters in float16")
    results.add_argument("--note", default="", help="commit and machine, for the adapters' cards")
    results.set_defaults(run=_results)

    add_bases(commands, _add_places)

    channels = commands.add_parser("channels", help="a corpus through telephones, rooms, …")
    channels.add_argument("--data", type=Path, required=True, help="folder with train, dev, test")
    channels.add_argument("--out", type=Path, required=True, help="folder to write to")
    channels.add_argument("--nj", type=int, default=2, help="parallel jobs (default 2)")
    channels.set_defaults(run=_channels)

    families = commands.add_parser("families", help="table of egs/tuxpaint/families1")
    families.add_argument("--data", type=Path, default=Path("data"), help="(default data)")
    families.add_argument("--exp", type=Path, default=Path("exp"), help="(default exp)")
    families.add_argument("--language", default="ro", metavar="CODE", help="(default ro)")
    families.add_argument("--others", nargs="*", default=[], metavar="CODE", help="more columns")
    families.add_argument("--list", action="store_true", help="name the families")
    families.add_argument("--best", type=int, metavar="N", help="name the best of --backbone")
    families.add_argument("--backbone", help="whisper, wav2vec2 or ast")
    families.set_defaults(run=_families)

    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (SpeechAdaptError, EvalError) as error:
        print(f"speechadapt-recipes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("speechadapt-recipes: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--downloads", type=Path, default=Path("downloads"), help="(default downloads)"
    )
    parser.add_argument("--archives", type=Path, help="folder of archives fetched by hand")
    parser.add_argument("--nj", type=int, default=2, help="parallel jobs (default 2)")


def _demo(args: argparse.Namespace) -> None:
    from speechadapt_recipes.demo import demo

    demo(args.out, args.downloads, args.archives, args.nj, args.quick)


def _tuxpaint(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora import tuxpaint
    from speechadapt_recipes.corpora.common import other_release

    release = tuxpaint.RELEASES[0]
    if bool(args.archive) != bool(args.archive_sha256):
        raise FetchError("another release needs both --archive NAME and --archive-sha256 HEX")
    if args.archive:
        release = other_release(release, args.archive, args.archive_sha256)
    if args.fetch_only:
        print(tuxpaint.stamps_folder(args.downloads, args.archives, release))
        return
    languages = args.languages or tuxpaint.LANGUAGES
    sizes = tuxpaint.prepare(args.out, args.downloads, languages, args.archives, args.nj, release)
    _print_languages(sizes)


def _asterisk(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora import asterisk

    languages = args.languages or asterisk.LANGUAGES
    _print_languages(asterisk.prepare(args.out, args.downloads, languages, args.archives, args.nj))


def _music(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora import music

    _print_sizes("music", music.prepare(args.out, args.downloads, args.archives, args.nj))


def _noise(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora import noise

    sizes = noise.prepare(
        args.out, args.downloads, args.archives, args.nj, effects=not args.generated_only
    )
    _print_sizes("noise", sizes)


def _print_languages(sizes: dict[str, Sizes]) -> None:
    for language, splits in sizes.items():
        _print_sizes(language, splits)


def _print_sizes(name: str, splits: Sizes) -> None:
    counts = []
    for split, size in splits.items():
        texts = f"{size['texts']:.0f} texts, " if size["texts"] else ""
        counts.append(f"{split} {size['clips']:.0f} clips ({texts}{size['minutes']} min)")
    print(f"{name}: {', '.join(counts)}")


def _results(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora.tuxpaint import LANGUAGES
    from speechadapt_recipes.results import pack, results

    languages = args.languages or LANGUAGES
    print(results(args.data, args.exp, languages))
    if args.pack:
        pack(args.data, args.exp, languages, args.pack, args.note)


def _channels(args: argparse.Namespace) -> None:
    from speechadapt_recipes.channel_task import prepare

    for split, counts in prepare(args.data, args.out, args.nj).items():
        print(f"{split}: {', '.join(f'{label} {counts[label]}' for label in sorted(counts))}")


def _families(args: argparse.Namespace) -> None:
    from speechadapt.adapters.registry import PRESETS
    from speechadapt_recipes.families import best, families

    if args.list:
        print(*PRESETS)
    elif args.best:
        if not args.backbone:
            raise EvalError("--best needs --backbone: whisper, wav2vec2 or ast")
        print(*best(args.data, args.exp, args.backbone, args.language, args.best))
    else:
        print(families(args.data, args.exp, args.language, args.others), end="")


if __name__ == "__main__":
    sys.exit(main())
