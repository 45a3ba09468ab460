"""The report of a run: complete, bounded, safe, and looked at by a browser."""

import csv
import json
import random
import re
import shutil
import subprocess
import wave
from html.parser import HTMLParser

import pytest

from speechadapt_eval.cli.main import main
from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import Row
from speechadapt_eval.report import worst
from speechadapt_eval.report.alignment import marked
from speechadapt_eval.report.axis import Axis, short
from speechadapt_eval.report.chart import pareto
from speechadapt_eval.report.run_report import Report
from speechadapt_eval.report.scored import read_run
from speechadapt_eval.report.versus import compare_runs, render_comparison
from speechadapt_eval.runs.folder import Decoding, Run, RunSet, RunSystem
from speechadapt_eval.statistics.bootstrap import interval_of, paired_difference
from speechadapt_eval.transcripts.wer import align, score

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\'"`|*'
TEXTS = {
    "be": "чырвоная кветка расце ў садзе каля старой хаты",
    "ro": "pisica neagră doarme lângă soba caldă din bucătărie",
    "es": "el pájaro azul canta en la rama del viejo árbol",
    "en": "a small green boat drifts slowly down the quiet river",
    "ar": "القطة الصغيرة تنام بجانب النافذة في البيت القديم",
    "he": "הציפור הכחולה שרה על הענף של העץ הישן",
    "hi": "छोटी लाल चिड़िया पुराने पेड़ की डाल पर गाती है",
    "th": "นก สีฟ้า ร้องเพลง อยู่ บน กิ่งไม้ เก่า",
}
CONDITIONS = [(None, None), *((n, snr) for n in ("babble", "street") for snr in (0, 5, 10, 20))]
# Name, parameters trained, errors of a word in clean speech, seconds of an utterance.
SYSTEMS = [("frozen", 0, 0.25, 0.3), ("adapters", 812_032, 0.1, 0.33)]


def heard(words, share, rng):
    """What a system with that share of errors would write."""
    result = []
    for word in words:
        if rng.random() >= share:
            result.append(word)
        elif (kind := rng.random()) < 0.6:
            result.append(word[::-1])
        elif kind < 0.8:
            result += [word, word[:2]]
    return " ".join(result)


def write_run(path, seed=1, systems=SYSTEMS, each=54, languages=tuple(TEXTS), version="1.0"):
    """A run as the harness writes it: two systems, eight languages, noises, empty references."""
    rng, texts = random.Random(seed), random.Random(0)  # the texts of all runs are the same
    record = {
        "command": ["speechadapt-eval", "run", "--system", EVIL],
        "started": "2026-11-22T06:00:00+00:00",
        "versions": {"python": "3.11", "jiwer": version},
        "commit": "0123abc",
        "machine": {"cpu": "Some CPU", "cores": 2, "load_average": [rng.random()]},
        "seeds": {"bootstrap": 0},
        "normaliser": {"name": "unicode", "version": 1},
    }
    run = Run(
        path,
        tuple(RunSystem(n, f"cmd:{n} {{wav}} {EVIL}", 72_593_920, t) for n, t, _, _ in systems),
        tuple(
            RunSet(f"{lang}_test", f"data/{lang}/test", lang, each, 4.0 * each)
            for lang in languages
        ),
        record,
    )
    run.write()
    audio = path / "audio" / "a b#c?.wav"
    audio.parent.mkdir()
    with wave.open(str(audio), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    tables = {"wer": [], "pairs": [], "speed": []}
    for one in run.sets:
        refs = {}
        for k in range(each):
            words = TEXTS[one.language].split()
            texts.shuffle(words)
            refs[f"{one.language}-{k:03}"] = " ".join(words[: texts.randint(3, 8)])
        refs[f"{one.language}-000"] = ""
        refs[f"{one.language}-001 {EVIL}"] = f"{EVIL} {TEXTS[one.language]}"
        if one.language == "en":
            refs["en-long"] = " ".join(["word"] * 5000 + ["end"])
        conditions = {name: texts.choice(CONDITIONS) for name in refs}
        rates = []
        for name, _, share, seconds in systems:
            rows = []
            for utterance, ref in refs.items():
                noise, snr = conditions[utterance]
                worse = share * (1 if snr is None else 1 + 1.5 * (1 - snr / 25))
                fields = {
                    "speaker": f"{one.language}{sum(utterance.encode()) % 5}",
                    "seconds": seconds * rng.lognormvariate(0, 0.4),
                    "audio": str(audio),
                    "noise": noise,
                    "snr": snr,
                    "mos": round(
                        3.3 - (0 if snr is None else 1.6 - snr / 20) + rng.gauss(0, 0.2), 3
                    ),
                    "adapter": None
                    if name == "frozen"
                    else rng.choice([one.language] * 8 + ["ro"]),
                }
                hyp = heard(ref.split(), worse, rng) or ("noise" if rng.random() < 0.5 else "")
                rows.append(Row(utterance, ref, hyp, one.language, fields))
            total = sum(row.fields["seconds"] for row in rows)
            run.write_rows(name, one.name, rows, Decoding(total, 4.0 * each))
            rate = score({r.id: r.ref for r in rows}, {r.id: r.hyp for r in rows})
            rates.append(rate)
            interval = interval_of(rate, {r.id: r.fields["speaker"] for r in rows})
            counts = ("errors", "n_ref", "substitutions", "deletions", "insertions", "rate", "unit")
            tables["wer"].append(
                {"system": name, "set": one.name, "lang": one.language, "normalizer": "unicode"}
                | {key: getattr(rate, key) for key in counts}
                | {key: getattr(interval, key) for key in ("low", "high", "method", "note")}
                | {"utterances": len(rows), "speakers": 5}
            )
            tables["speed"].append(
                {"system": name, "set": one.name, "audio_seconds": 4.0 * each, "seconds": total}
                | {"rtf": total / (4.0 * each), "rtfx": 4.0 * each / total, "batched": False}
            )
        if len(rates) > 1:
            paired = paired_difference(rates[0], rates[1])
            keys = ("delta", "low", "high", "p_improvement", "level", "method", "note")
            tables["pairs"].append(
                {"baseline": systems[0][0], "system": systems[1][0], "set": one.name}
                | {key: getattr(paired, key) for key in keys}
            )
    for name, rows in tables.items():
        run.write_table(name, rows)
    return path
