"""The commands of ``speechadapt-recipes`` that make the small bases."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_commands(commands: Any, add_places: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add them to the parser; ``add_places`` adds the options that preparing any corpus has."""
    synthetic = commands.add_parser("synthetic", help="synthetic speech for training")
    add_places(synthetic)
    synthetic.add_argument("--languages", nargs="+", metavar="CODE", help="default: all ten")
    synthetic.set_defaults(run=_synthetic)

    pool = commands.add_parser("pool", help="several data dirs as one")
    pool.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    pool.add_argument("--out", type=Path, required=True)
    pool.add_argument("--for-ctc", action="store_true", help="leave out what CTC cannot learn")
    pool.set_defaults(run=_pool)

    scenes = commands.add_parser("scenes", help="clips with language, sound and scene labels")
    scenes.add_argument("--speech", nargs="+", type=Path, required=True, metavar="DIR")
    scenes.add_argument("--noise", type=Path, required=True, metavar="DIR")
    scenes.add_argument("--music", type=Path, required=True, metavar="DIR")
    scenes.add_argument("--out", type=Path, required=True)
    scenes.add_argument("--nj", type=int, default=2, help="parallel jobs (default 2)")
    scenes.set_defaults(run=_scenes)

    init = commands.add_parser("init", help="a base with random weights")
    init.add_argument("--config", type=Path, required=True, metavar="YAML")
    init.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    init.add_argument("--out", type=Path, required=True)
    init.add_argument("--seed", type=int, default=0, help="(default 0)")
    init.set_defaults(run=_init)

    words = commands.add_parser("words", help="table of word errors by voice")
    words.add_argument("data", type=Path)
    words.add_argument("text", type=Path)
    words.set_defaults(run=_words)

    labels = commands.add_parser("labels", help="table of a classifier's errors")
    labels.add_argument("data", type=Path)
    labels.add_argument("answers", type=Path)
    labels.set_defaults(run=_labels)

    store = commands.add_parser("store", help="a trained base in float16, with a card")
    store.add_argument("--run", dest="folder", type=Path, required=True, metavar="DIR")
    store.add_argument("--init", type=Path, required=True, metavar="DIR")
    store.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    store.add_argument("--results", type=Path, required=True, metavar="MD")
    store.add_argument("--command", required=True, help="what made it")
    store.add_argument("--note", required=True, help="commit and machine")
    store.add_argument("--out", type=Path, required=True)
    store.set_defaults(run=_store)


def _synthetic(args: argparse.Namespace) -> None:
    from speechadapt_recipes.corpora import synthetic

    languages = args.languages or synthetic.LANGUAGES
    sizes = synthetic.prepare(args.out, args.downloads, languages, args.archives)
    for language, splits in sizes.items():
        print(f"{language}: {splits['train']['clips']} clips, {splits['train']['minutes']} min")


def _pool(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases.pool import pool

    for reason, count in pool(args.data, args.out, args.for_ctc).items():
        print(f"{args.out}: {count} left out, {reason}")


def _scenes(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases import scenes

    counts = scenes.prepare(args.out, args.speech, args.noise, args.music, args.nj)
    for split, found in counts.items():
        print(f"{split}: {', '.join(f'{label} {found[label]}' for label in sorted(found))}")


def _init(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases.random_base import write_random_base

    count = write_random_base(args.config, args.data, args.out, args.seed)
    print(f"{args.out}: {count:,} parameters")


def _words(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases.scores import words_table

    print(words_table(args.data, args.text), end="")


def _labels(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases.scores import labels_table

    print(labels_table(args.data, args.answers), end="")


def _store(args: argparse.Namespace) -> None:
    from speechadapt_recipes.bases.store import store

    results = args.results.read_text(encoding="utf-8")
    size = store(args.folder, args.init, args.out, args.data, results, args.command, args.note)
    print(f"{args.out}: {size:,} bytes")
