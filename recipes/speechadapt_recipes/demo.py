"""``make demo``: a frozen Whisper learns Belarusian from a quarter of an hour of speech."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from speechadapt.data import read_data_dir, write_data_dir
from speechadapt_eval.report.chart import training_charts
from speechadapt_eval.report.page import Page, write_page
from speechadapt_eval.report.scored import ScoredRun
from speechadapt_eval.report.systems import SystemRow, render_systems
from speechadapt_recipes.corpora import tuxpaint
from speechadapt_recipes.steps import evaluate, speechadapt, training_curves

BASE = "openai/whisper-base"
LANGUAGE = "be"
QUICK_TRAIN, QUICK_TEST = 40, 8  # utterances; enough to run every part for real
# Name in the run: what the page calls it, and the silence that it hears after each clip.
SYSTEMS = {
    "frozen-30s": ("frozen whisper-base", "30 s"),
    "frozen-2.56s": ("frozen whisper-base", "2.56 s of silence"),
    "adapter": ("with Belarusian adapter", "0.5 s of silence"),
}


def demo(folder: Path, downloads: Path, archives: Path | None, nj: int, quick: bool) -> None:
    """Fetch, train, transcribe, compare; a second run takes what is there.

    Args:
        folder: Everything but the downloads goes here.
        downloads: Where archives are kept.
        archives: Folder of archives fetched by hand.
        nj: Parallel processes for decoding audio.
        quick: A few steps and utterances, to see that every part works.
    """
    data = folder / "data"
    if not (data / LANGUAGE / "splits.json").is_file():
        tuxpaint.prepare(data, downloads, [LANGUAGE], archives, nj)
    test, run = data / LANGUAGE / "test", folder / "exp" / LANGUAGE
    train, options = data / LANGUAGE / "train", ["--dev", str(data / LANGUAGE / "dev")]
    if quick:
        folder = folder / "quick"
        run = folder / "exp" / LANGUAGE
        test = _part(test, folder / "test", QUICK_TEST)
        train, options = _part(train, folder / "train", QUICK_TRAIN), ["--steps", "4"]
    preset = resources.files("speechadapt_recipes.presets") / "whisper_base_language.yaml"
    options += ["--config", str(preset), "--out", str(run)]
    speechadapt("train", "--base", BASE, "--data", train, *options)

    ours = f"speechadapt:{BASE}"
    scored = evaluate(
        folder / "eval",
        {
            "frozen-30s": f"{ours}?context=full&batch_seconds=240",
            "frozen-2.56s": f"{ours}?context=2.56",
            "adapter": f"{ours}:{run / 'adapter'}",
        },
        {LANGUAGE: test},
    )
    _page(folder, test, run, scored)


def _part(data: Path, folder: Path, count: int) -> Path:
    write_data_dir(folder, read_data_dir(data)[:count])
    return folder


def _page(folder: Path, test: Path, run: Path, scored: ScoredRun) -> None:
    parts = {part.system: part for part in scored.parts}
    best = min(("frozen-30s", "frozen-2.56s"), key=lambda name: parts[name].rate.rate)
    cer = {r["system"]: float(r["rate"]) for r in scored.run.table("wer") if r["unit"] == "char"}
    size = scored.run.system(best).parameters
    rows = [
        replace(
            SystemRow.measured(
                *SYSTEMS[name],
                part.rate,
                baseline=None if name == best else parts[best].rate,
                speakers=part.speakers,
                trainable=scored.run.system(name).trainable,
                base_parameters=size,
                seconds=scored.run.decoding(name, LANGUAGE).seconds,
            ),
            cer=cer[name],
        )
        for name, part in parts.items()
    ]
    utterances = read_data_dir(test)
    minutes = sum(u.duration or 0.0 for u in utterances) / 60
    intro = (
        f"{len(utterances)} held-out recordings ({minutes:.1f} minutes) of texts and pictures that "
        "were not trained on; Δ against the frozen base at its better context "
        f"({SYSTEMS[best][1]}).",
        "One voice speaks all recordings, those of the training set too: the adapter has learnt "
        "the language and the voice.",
    )
    next_commands = (
        f"speechadapt transcribe {test} --adapter {run / 'adapter'} --beam 5",
        f"speechadapt transcribe YOUR.wav --adapter {run / 'adapter'} --format srt",
        "cd egs/tuxpaint/asr1 && ./run.sh --langs 'be ro'  # the other languages",
    )
    page = folder / "index.html"
    write_page(
        page,
        Page(
            title="A frozen Whisper learns Belarusian",
            intro=intro,
            rows=rows,
            systems={"frozen": parts[best].rate, "adapter": parts["adapter"].rate},
            audio={u.id: Path(u.audio).name for u in utterances},
            charts=training_charts(*training_curves(run)),
            next_commands=next_commands,
            language=LANGUAGE,
            footer=((test / "LICENCE").read_text(encoding="utf-8").strip(),)
            if (test / "LICENCE").is_file()
            else (),
        ),
    )
    print(
        f"\n{render_systems(rows)}\n{intro[0]}\n{intro[1]}\n\nPage: {page}\n"
        f"Report: {scored.run.path / 'report.html'}\n\nNext, in .venv/bin:"
    )
    for command in next_commands:
        print(f"  {command}")
