"""NIST's scoring toolkit (Debian package ``sctk``) as an oracle, and the fixture it made:

    python tests/speechadapt_eval/sctk.py egs/tuxpaint/asr1/data fixtures/sctk.json

Takes three corpora of real references (ro, be, and es with utterances joined in pairs), writes
their words as numbers, corrupts them twice with a seed, and notes what sclite and sc_stats say.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from speechadapt_eval import normalizer
from speechadapt_eval.io import read_kaldi_text

BIN = Path("/usr/lib/sctk/bin")
TALKERS = 5


def verdict(texts):
    """What sctk says of ``[(reference, hypothesis A, hypothesis B), ...]``."""
    with tempfile.TemporaryDirectory() as folder:
        for side, name in enumerate(("ref", "a", "b")):
            lines = [f"{t[side]} (s{i % TALKERS}_{i:04})\n" for i, t in enumerate(texts)]
            Path(folder, f"{name}.trn").write_text("".join(lines), encoding="utf-8")
        sgml, totals = "", []
        for name in ("a", "b"):
            command = f"-i spu_id -e utf-8 -s -r ref.trn trn -h {name}.trn trn {name} -o sgml rsum"
            _run(folder, f"{BIN}/sclite {command} -n {name} -O .")
            sgml += Path(folder, f"{name}.sgml").read_text(encoding="utf-8")
            sums = re.search(r"\| Sum .*", Path(folder, f"{name}.raw").read_text(encoding="utf-8"))
            totals.append([int(n) for n in re.findall(r"\d+", sums[0])])
        _run(folder, f"{BIN}/sc_stats -p -t mapsswe -v -n pair", sgml)
        found = re.search(
            r"# segs: (\d+).*mean: (\S+)\) \(std dev: (\S+)\) \(Z Stat: (\S+)\)",
            Path(folder, "pair.stats.mapsswe").read_text(encoding="latin-1"),
        )
    columns = ("sentences", "n_ref", "hits", "substitutions", "deletions", "insertions", "errors",
               "sentence_errors")  # fmt: skip
    return {
        "segments": int(found[1]), "mean": float(found[2]), "sd": float(found[3]),
        "z": float(found[4]), "totals": [dict(zip(columns, t, strict=True)) for t in totals],
    }  # fmt: skip


def _run(folder, command, text=None):
    subprocess.run(
        command.split(), cwd=folder, input=text, check=True, stdout=subprocess.DEVNULL,
        encoding="utf-8",
    )  # fmt: skip


def _corrupted(words, vocabulary, share, rng):
    said = []
    for word in words:
        chance = rng.random() / share
        if chance < 0.6:
            said.append(rng.choice(vocabulary))
        elif chance > 0.8:  # between: deleted
            said.append(word)
        if rng.random() < 0.2 * share:
            said.append(rng.choice(vocabulary))
    return said


def main(data, target):
    corpora = {}
    for language, joined, seed in (("ro", 1, 1), ("be", 1, 2), ("es", 2, 3)):
        clean, rng = normalizer("unicode"), random.Random(seed)
        folders = [Path(data, language, part, "text") for part in ("test", "dev", "train")]
        every = [clean(text).split() for path in folders for text in read_kaldi_text(path).values()]
        numbers = {}
        every = [[str(numbers.setdefault(w, len(numbers))) for w in words] for words in every]
        refs = [
            [word for words in every[i : i + joined] for word in words]
            for i in range(0, 440 * joined, joined)
        ]
        vocabulary = sorted({word for ref in refs for word in ref})
        texts = [
            [" ".join(words) for words in
             (ref, *(_corrupted(ref, vocabulary, share, rng) for share in (0.3, 0.25)))]
            for ref in refs
        ]  # fmt: skip
        corpora[language] = {"sctk": verdict(texts), "texts": texts}
    lines = json.dumps(corpora).replace("], [", "],\n[")
    Path(target).write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
