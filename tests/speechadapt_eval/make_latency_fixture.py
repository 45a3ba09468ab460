"""Make ``fixtures/latency.json``: figures of other tools, which ours must give too.

    python -m venv v && v/bin/pip install simuleval==1.1.4 OmniSTEval==0.1.10 simulstream==1.0.0
    v/bin/python make_latency_fixture.py fixtures/latency.json

(SimulEval pins old versions of libraries that its scorers do not need; ``--no-deps`` and what the
imports below ask for is enough.) Times of these tools are in milliseconds.
"""

import json
import random
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

from omnisteval import Instance, resegment
from omnisteval import Word as OmniWord
from omnisteval.scoring import ALScorer as OmniAL
from omnisteval.scoring import LAALScorer as OmniLAAL
from simuleval.evaluator.scorers.latency_scorer import ALScorer, LAALScorer
from simulstream.metrics.readers import OutputWithDelays, ReferenceSentenceDefinition
from simulstream.metrics.scorers.latency import LatencyScoringSample
from simulstream.metrics.scorers.latency.stream_laal import StreamLaal

RANDOM = random.Random(5)
LETTERS = "абвгдежзіклмнопрстуфхцчшэюя"


def word():
    return "".join(RANDOM.choices(LETTERS, k=6))


def heard(ref, rate):
    """What a system might make of the words: the rate of substitutions, deletions, insertions."""
    hyp = []
    for said in ref:
        kind = RANDOM.random()
        if kind < rate:
            hyp.append(word())
        elif kind < 2 * rate:
            pass
        elif kind < 3 * rate:
            hyp += [said, word()]
        else:
            hyp.append(said)
    return hyp


def delays_of(count, start, end, chunk):
    """Delays by the audio (multiples of a chunk, at most the end) and by the wall clock."""
    audio = sorted(
        min(end, chunk * -(-(start + RANDOM.random() * (end - start)) // chunk))
        for _ in range(count)
    )
    wall, last, offset = [], None, 0.0
    for delay in audio:
        if delay != last:
            offset = max(0.0, offset - 300) + RANDOM.uniform(20, 900)
            last = delay
        wall.append(max(wall[-1] if wall else 0.0, delay + offset))
    return audio, wall


def short_form():
    for number in range(40):
        source = RANDOM.uniform(1500, 12000)
        ref = [word() for _ in range(RANDOM.randint(1, 25))]
        hyp = heard(ref, 0.12) or [word()]
        late = number % 10 == 0  # everything comes at the end
        audio, wall = delays_of(len(hyp), source if late else 0.0, source, 800)
        case = {"source_length": source, "ref": " ".join(ref), "hyp": " ".join(hyp)}
        case |= {"delays": audio, "elapsed": wall}
        instance = {
            "instance": SimpleNamespace(
                reference=case["ref"], reference_length=len(ref), source_length=source,
                delays=audio, elapsed=wall, metrics={},
            )
        }  # fmt: skip
        omni = [
            Instance(
                prediction=case["hyp"], reference=case["ref"], source_length=source,
                emission_cu=audio, emission_ca=wall,
            )
        ]  # fmt: skip
        for aware, suffix in ((False, ""), (True, "_ca")):
            case["simuleval_al" + suffix] = ALScorer(computation_aware=aware)(instance)
            case["simuleval_laal" + suffix] = LAALScorer(computation_aware=aware)(instance)
            case["omnisteval_al" + suffix] = OmniAL(computation_aware=aware)(omni)
            case["omnisteval_laal" + suffix] = OmniLAAL(computation_aware=aware)(omni)
        yield case


def long_form():
    for _ in range(8):
        segments, hyp, start = [], [], RANDOM.uniform(0, 2000)
        for _ in range(6):
            length = RANDOM.uniform(2000, 8000)
            ref = [word() for _ in range(RANDOM.randint(3, 15))]
            segments.append({"start": start, "duration": length, "ref": " ".join(ref)})
            # First and last word are right, so that nobody can argue to which segment one belongs.
            words = [ref[0], *heard(ref[1:-1], 0.12), ref[-1]]
            audio, wall = delays_of(len(words), start, start + length + 1500, 800)
            hyp += zip(words, audio, wall, strict=True)
            start += length + RANDOM.uniform(0, 1500)
        words = [said for said, _, _ in hyp]
        audio = sorted(delay for _, delay, _ in hyp)
        wall = sorted(delay for _, _, delay in hyp)
        wall = [max(a, w) for a, w in zip(audio, wall, strict=True)]
        case = {"segments": segments, "hyp": " ".join(words), "delays": audio, "elapsed": wall}
        sample = LatencyScoringSample(
            "recording",
            OutputWithDelays(case["hyp"], audio, wall),
            [
                ReferenceSentenceDefinition(part["ref"], part["start"], part["duration"])
                for part in segments
            ],
        )
        scores = StreamLaal(Namespace(latency_unit="word")).score([sample])
        case["simulstream_laal"] = scores.ideal_latency
        case["simulstream_laal_ca"] = scores.computational_aware_latency
        instances, _ = resegment(
            [
                [
                    OmniWord(said, seq_id=number)
                    for number, part in enumerate(segments)
                    for said in part["ref"].split()
                ]
            ],
            [
                [
                    OmniWord(said, emission_cu=a, emission_ca=w, original=said)
                    for said, a, w in zip(words, audio, wall, strict=True)
                ]
            ],
            [
                {
                    "offset": part["start"], "duration": part["duration"],
                    "time_to_recording_end": 1e9,
                }
                for part in segments
            ],
            [part["ref"] for part in segments],
        )  # fmt: skip
        case["omnisteval_laal"] = OmniLAAL()(instances)
        case["omnisteval_laal_ca"] = OmniLAAL(computation_aware=True)(instances)
        yield case


if __name__ == "__main__":
    fixture = {"short": list(short_form()), "long": list(long_form())}
    text = json.dumps(fixture, ensure_ascii=False, indent=0)
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
