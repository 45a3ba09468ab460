"""One line of a comparison of systems, the same in terminals, RESULTS files and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.statistics.bootstrap import Interval, Paired, interval_of, paired_difference
from speechadapt_eval.transcripts.wer import ErrorRate

NOTHING = "–"  # in a cell whose figure is not known or does not apply
HEADER = (
    "system",
    "context",
    "WER %",
    "95 % CI",
    "CER %",
    "Δ WER",
    "Δ 95 % CI",
    "trainable",
    "% of base",
    "seconds",
)
ALIGN = "ll" + "r" * 8  # texts left, figures right


@dataclass(frozen=True)
class SystemRow:
    """The figures of one system on one test set.

    Attributes:
        system: Name, e.g. ``frozen whisper-base``.
        context: What it heard or used, e.g. ``30 s`` or ``2.56 s silence``.
        wer: Word error rate (a share).
        interval: Its confidence interval.
        cer: Character error rate (a share); None if not measured.
        delta: Paired difference to the baseline; None for the baseline itself.
        trainable: Trained parameters; None if not known.
        base_parameters: Parameters of the base, to relate them to.
        seconds: Time that transcribing the set took; None if not measured.
    """

    system: str
    context: str
    wer: float
    interval: Interval
    cer: float | None = None
    delta: Paired | None = None
    trainable: int | None = None
    base_parameters: int | None = None
    seconds: float | None = None

    @classmethod
    def measured(
        cls,
        system: str,
        context: str,
        wer: ErrorRate,
        cer: ErrorRate | None = None,
        *,
        baseline: ErrorRate | None = None,
        speakers: Mapping[str, str] | None = None,
        trainable: int | None = None,
        base_parameters: int | None = None,
        seconds: float | None = None,
    ) -> SystemRow:
        """Make a row from what ``score`` returned, with its intervals.

        Args:
            system: Name of the system.
            context: What it heard or used.
            wer: Word errors.
            cer: Character errors of the same texts.
            baseline: Word errors of the system to compare with, on the same utterances.
            speakers: Utterance id to speaker, where there are several.
            trainable: Trained parameters.
            base_parameters: Parameters of the base.
            seconds: Time that transcribing took.

        Raises:
            EvalError: The baseline was scored on other utterances, or one has no speaker.
        """
        return cls(
            system,
            context,
            wer.rate,
            interval_of(wer, speakers),
            None if cer is None else cer.rate,
            None if baseline is None else paired_difference(baseline, wer, speakers),
            trainable,
            base_parameters,
            seconds,
        )

    def cells(self) -> list[str]:
        """The row as text, in the order of ``HEADER``; a dash where nothing is known."""
        delta, share = self.delta, None
        if self.trainable is not None and self.base_parameters:
            share = self.trainable / self.base_parameters
        return [
            self.system,
            self.context,
            percent(self.wer),
            percent_range(self.interval.low, self.interval.high),
            NOTHING if self.cer is None else percent(self.cer),
            NOTHING if delta is None else percent(delta.delta, signed=True),
            NOTHING if delta is None else percent_range(delta.low, delta.high, signed=True),
            NOTHING if self.trainable is None else f"{self.trainable:,}",
            NOTHING if share is None else percent(share),
            NOTHING if self.seconds is None else f"{self.seconds:.1f}",
        ]


def render_systems(rows: Sequence[SystemRow], *, markdown: bool = False) -> str:
    """Render the comparison as a table, followed by what its intervals do not say."""
    table = render(HEADER, [row.cells() for row in rows], align=ALIGN, markdown=markdown)
    return table + "".join(f"\n{note}\n" for note in notes(rows))


def notes(rows: Sequence[SystemRow]) -> list[str]:
    """How the intervals were made and what they do not say, each sentence once."""
    said: dict[str, None] = {}
    for row in rows:
        for interval in (row.interval, row.delta):
            if interval is not None:
                said[f"CI: {interval.method}" + (f"; {interval.note}" if interval.note else "")] = (
                    None
                )
    return list(said)
