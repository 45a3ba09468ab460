"""``make demo``: a frozen Whisper learns Belarusian from a quarter of an hour of speech."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from speechadapt.backbones.checkpoints import load_whisper
from speechadapt.data import read_data_dir, write_data_dir
from speechadapt_eval.report.chart import training_charts
from speechadapt_eval.report.page import Page, write_page
from speechadapt_eval.report.systems import SystemRow, render_systems
from speechadapt_recipes.corpora import tuxpaint
from speechadapt_recipes.runs import parameters_of
from speechadapt_recipes.steps import Transcribed, speechadapt, training_curves, transcribe

BASE = "openai/whisper-base"
LANGUAGE = "be"
QUICK_TRAIN, QUICK_TEST = 40, 8  # utterances; enough to run every part for real


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

    adapter = run / "adapter"
    frozen = ("--base", BASE, "--language", LANGUAGE)
    systems = {
        ("frozen", "30 s"): transcribe(
            test, folder / "frozen_30s.txt", *frozen, "--context", "full"
        ),
        ("frozen", "2.56 s of silence"): transcribe(
            test, folder / "frozen_short.txt", *frozen, "--context", "2.56"
        ),
        ("adapter", "0.5 s of silence"): transcribe(
            test, folder / "adapter.txt", "--base", BASE, "--adapter", adapter
        ),
    }
    _report(folder, test, run, systems)


def _part(data: Path, folder: Path, count: int) -> Path:
    write_data_dir(folder, read_data_dir(data)[:count])
    return folder


def _report(
    folder: Path, test: Path, run: Path, systems: dict[tuple[str, str], Transcribed]
) -> None:
    rates = {name: transcribed.rates(test) for name, transcribed in systems.items()}
    frozen = {name: wer for name, (wer, _) in rates.items() if name[0] == "frozen"}
    best = min(frozen, key=lambda name: frozen[name].rate)
    size = sum(p.numel() for p in load_whisper(BASE).model.parameters())
    adapter_size = parameters_of(run / "adapter")
    rows = [
        SystemRow.measured(
            f"{name[0]} whisper-base" if name[0] == "frozen" else "with Belarusian adapter",
            name[1],
            wer,
            cer,
            baseline=None if name == best else frozen[best],
            trainable=0 if name[0] == "frozen" else adapter_size,
            base_parameters=size,
            seconds=systems[name].seconds,
        )
        for name, (wer, cer) in rates.items()
    ]
    utterances = read_data_dir(test)
    minutes = sum(u.duration or 0.0 for u in utterances) / 60
    intro = (
        f"{len(utterances)} held-out recordings ({minutes:.1f} minutes) of texts and pictures that "
        f"were not trained on; Δ against the frozen base at its better context ({best[1]}).",
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
            systems={
                "frozen": rates[best][0],
                "adapter": rates["adapter", "0.5 s of silence"][0],
            },
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
        f"\n{render_systems(rows)}\n{intro[0]}\n{intro[1]}\n\nPage: {page}\n\nNext, in .venv/bin:"
    )
    for command in next_commands:
        print(f"  {command}")
