"""How often intervals of nominal 95 % hold the truth, in simulations where the truth is known.

    python eval/bench/interval_coverage.py

Prints three tables; ends with 1 if a figure that is promised (docs/evaluation/statistics.md) is not
between 92 and 97 %. Rows marked "hard" are beyond the promise and show how it bends.

Error rates: a speaker's rate is drawn from a gamma distribution (mean 20 %), the words of each
utterance from 3 to 12, its errors from a binomial. Listening tests: a rater's, a clip's and a
residual effect with standard deviations 0.5, 0.4 and 0.7 (of five points), as in the project's
survey of evaluation harnesses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from speechadapt_eval.listening.mos import system_mos
from speechadapt_eval.listening.ratings import SCALES, Rating
from speechadapt_eval.listening.screening import screen
from speechadapt_eval.report.table import render
from speechadapt_eval.statistics.bootstrap import (
    Interval,
    Paired,
    confidence_interval,
    paired_difference,
)
from speechadapt_eval.statistics.crossed import Table, crossed_difference, crossed_mean
from speechadapt_eval.transcripts.wer import ErrorRate, Utterance

RATE = 0.2
BOUNDS = 0.92, 0.97
SAMPLES = 1000  # bootstrap replicates in each simulated test


@dataclass(frozen=True)
class Speakers:
    """A simulated corpus: speakers, spread of their rates, whether some speak far more."""

    count: int
    spread: float = 0.06
    unequal: bool = True

    def rates(self, rng: np.random.Generator) -> np.ndarray:
        """The rate of each speaker."""
        shape = (RATE / self.spread) ** 2
        return np.minimum(1, rng.gamma(shape, RATE / shape, size=self.count))

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Errors, reference words and speaker of each utterance."""
        rates = self.rates(rng)
        many = rng.lognormal(-0.125, 0.5, self.count) if self.unequal else np.ones(self.count)
        speaker = np.repeat(np.arange(self.count), np.maximum(3, np.round(40 * many)).astype(int))
        words = rng.integers(3, 13, size=len(speaker))
        return rng.binomial(words, rates[speaker]), words, speaker


@dataclass(frozen=True)
class Listening:
    """A simulated listening test; ``missing`` is the share of empty cells."""

    raters: int
    clips: int
    missing: float = 0.0

    def draw(self, rng: np.random.Generator, systems: int = 1) -> list[Table]:
        """Ratings of each system; the true mean of all is 0.

        A system pleases some raters, and suits some clips, better than others: with several, a
        third of what raters and clips add is its own.
        """

        def effect() -> np.ndarray:
            return rng.normal(0, 0.5, self.raters)[:, None] + rng.normal(0, 0.4, self.clips)

        common, own = ((2 / 3) ** 0.5, (1 / 3) ** 0.5) if systems > 1 else (1.0, 0.0)
        shared = common * effect()
        tables = []
        for _ in range(systems):
            scores = shared + own * effect()
            scores += rng.normal(0, 0.7, scores.shape)
            there = (rng.random(scores.shape) >= self.missing).astype(float)
            tables.append(Table(scores * there, there))
        return tables


def by_speaker(setting: Speakers, rng: np.random.Generator) -> tuple[Interval, float]:
    """Our interval by speakers, and the truth."""
    errors, words, speaker = setting.draw(rng)
    return confidence_interval(errors, words, list(speaker.astype(str)), samples=SAMPLES), RATE


def rate_difference(setting: Speakers, rng: np.random.Generator) -> tuple[Paired, float]:
    """Our interval of ΔWER; half of what a speaker is for B is the same as for A."""
    rates = setting.rates(rng)
    _, words, speaker = setting.draw(rng)
    n_ref = np.bincount(speaker, words).astype(int)
    systems = []
    for share in (rates, 0.9 * (rates + setting.rates(rng)) / 2):
        errors = rng.binomial(n_ref, share)
        systems.append(
            ErrorRate(
                "word",
                "none",
                "strict",
                tuple(
                    Utterance(str(i), "", "", int(n - e), int(e), 0, 0)
                    for i, (n, e) in enumerate(zip(n_ref, errors, strict=True))
                ),
            )
        )
    who = {u.id: u.id for u in systems[0].utterances}
    return paired_difference(systems[0], systems[1], who, samples=SAMPLES), -0.1 * RATE


def by_utterance(setting: Speakers, rng: np.random.Generator) -> tuple[Interval, float]:
    """The same without the speakers."""
    errors, words, _ = setting.draw(rng)
    return confidence_interval(errors, words, samples=SAMPLES), RATE


def mean_score(setting: Listening, rng: np.random.Generator) -> tuple[Interval, float]:
    """Our interval of a mean opinion score."""
    return crossed_mean(setting.draw(rng)[0], samples=SAMPLES), 0.0


def score_difference(setting: Listening, rng: np.random.Generator) -> tuple[Interval, float]:
    """Our interval of the difference of two systems that are equally good."""
    b, a = setting.draw(rng, 2)
    return crossed_difference(b, a, samples=SAMPLES), 0.0


def coverage(
    method: Callable[..., tuple[Interval | Paired, float]],
    setting: object,
    runs: int,
    seed: int = 0,
) -> float:
    """Share of simulated tests whose interval holds the truth."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        interval, truth = method(setting, rng)
        held += interval.low <= truth <= interval.high
    return held / runs


def naive_coverage(setting: Listening, runs: int, seed: int = 0) -> tuple[float, float]:
    """The same for two intervals that people print: 1.96 s / sqrt(n), and t over rater means."""
    rng = np.random.default_rng(seed)
    held = np.zeros(2)
    for _ in range(runs):
        table = setting.draw(rng)[0]
        cells = zip(*np.nonzero(table.counts), strict=True)
        ratings = [Rating(str(r), str(c), "s", float(table.sums[r, c])) for r, c in cells]
        mos = system_mos(ratings, samples=1)[0]
        held += [low <= 0 <= high for low, high in (mos.naive, mos.student)]
    return held[0] / runs, held[1] / runs


def screening(means: tuple[float, ...], runs: int, seed: int = 0) -> tuple[float, float, float]:
    """Twelve raters hear 20 clips of some systems; one of them presses keys at random.

    Returns:
        Shares of these found out; of honest raters left out; and of honest raters who would be by
        a fixed limit of 0.5 for the correlation.
    """
    rng = np.random.default_rng(seed)
    found = honest = fixed = 0
    for _ in range(runs):
        true = np.array(means)[:, None] + rng.normal(0, 0.4, 20)
        scores = true + rng.normal(0, 0.5, (12, 1, 1)) + rng.normal(0, 0.7, (12, *true.shape))
        scores = np.clip(np.round(scores), 1, 5)
        scores[0] = rng.integers(1, 6, size=true.shape)
        ratings = [
            Rating(f"{r:02}", str(c), str(s), float(score))
            for (r, s, c), score in np.ndenumerate(scores)
        ]
        liar, *others = screen(ratings, SCALES["acr"])
        found += not liar.kept
        honest += sum(not rater.kept for rater in others)
        fixed += sum(rater.correlation < 0.5 for rater in others)
    return found / runs, honest / runs / 11, fixed / runs / 11


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="simulated tests for each figure")
    args = parser.parse_args()
    outside: list[str] = []

    def promised(name: str, share: float) -> str:
        if not BOUNDS[0] <= share <= BOUNDS[1]:
            outside.append(f"{name}: {share:.1%}")
        return f"{100 * share:.1f}"

    with tqdm(total=15, unit="setting", disable=None) as bar:

        def each(items: list) -> Iterator:
            for item in items:
                yield item
                bar.update()

        rows = []
        for count in each([3, 5, 8, 12, 19, 20, 24, 40, 100]):
            setting, hard = Speakers(count), Speakers(count, spread=0.12)
            ours = promised(f"{count} speakers", coverage(by_speaker, setting, args.runs))
            pair = coverage(rate_difference, setting, args.runs)
            alone = coverage(by_utterance, setting, args.runs // 4)
            harder = coverage(by_speaker, hard, args.runs)
            method = "t" if count < 20 else "bootstrap"
            delta = promised(f"{count} speakers, pairs", pair)
            others = [f"{100 * share:.1f}" for share in (harder, alone)]
            rows.append([str(count), method, ours, delta, *others])
        header = ["speakers", "method", "WER", "ΔWER", "WER, hard", "WER, over utterances"]
        tables = [render(header, rows, align="rlrrrr", markdown=True)]
        rows = []
        settings = [Listening(12, 20), Listening(24, 20, 0.5), Listening(8, 10)]
        for listening in each(settings):
            name = f"{listening.raters} x {listening.clips}"
            name += ", half missing" if listening.missing else ""
            ours = promised(name, coverage(mean_score, listening, args.runs))
            difference = coverage(score_difference, listening, args.runs)
            naive, student = naive_coverage(listening, args.runs // 4)
            delta = promised(f"{name}, pairs", difference)
            rows.append([name, ours, delta, f"{100 * naive:.1f}", f"{100 * student:.1f}"])
        header = ["raters x clips", "MOS", "difference", "1.96 s/√n", "t over raters"]
        tables.append(render(header, rows, markdown=True))
        rows = []
        for means in each([(2.0, 3.0, 4.0), (2.9, 3.6, 3.7), (3.5, 3.6)]):
            shares = screening(means, args.runs // 20)
            name = ", ".join(map(str, means))
            rows.append([name, *(f"{100 * share:.1f}" for share in shares)])
        header = ["true MOS of the systems", "random raters found", "honest left out",
                  "honest below 0.5"]  # fmt: skip
        tables.append(render(header, rows, markdown=True))
    print("\n".join(tables))
    for line in outside:
        print(f"outside {BOUNDS[0]:.0%} to {BOUNDS[1]:.0%}: {line}", file=sys.stderr)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
