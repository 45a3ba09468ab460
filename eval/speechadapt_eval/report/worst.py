"""The utterances worth reading: where a system errs most, and where it errs more than another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from speechadapt_eval.report.alignment import LEGEND, article, clip
from speechadapt_eval.report.audio import Players
from speechadapt_eval.report.markup import paragraphs, section
from speechadapt_eval.report.scored import Part
from speechadapt_eval.transcripts.wer import Utterance

ROOM = 4_000_000  # bytes of alignments in a page, all lists together


@dataclass(frozen=True)
class Case:
    """One utterance as every system heard it; the last one is the system of interest."""

    parts: tuple[Part, ...]
    utterances: tuple[Utterance, ...]

    @property
    def gain(self) -> int:
        """Errors of the last system beyond those of the first."""
        return self.utterances[-1].errors - self.utterances[0].errors


@dataclass(frozen=True)
class CaseList:
    """Some utterances under a heading.

    Attributes:
        title: Heading.
        cases: Those chosen, the most telling first.
        total: How many there were to choose from.
    """

    title: str
    cases: Sequence[Case]
    total: int


def cases(groups: Sequence[Sequence[Part]]) -> list[Case]:
    """Utterances that all systems of a group heard, with the same reference.

    Args:
        groups: For each set, its parts: of the same systems, the one of interest last.
    """
    found = []
    for parts in groups:
        of_each = [{u.id: u for u in part.rate.utterances} for part in parts]
        for name in of_each[-1]:
            if all(name in known for known in of_each):
                heard = tuple(known[name] for known in of_each)
                if all(u.ref == heard[0].ref for u in heard):
                    found.append(Case(tuple(parts), heard))
    return found


def case_lists(found: Sequence[Case], names: Sequence[str], most: int) -> list[CaseList]:
    """What is worth reading of two or more systems, or of one.

    Args:
        found: See ``cases``.
        names: Of the systems, the one of interest last.
        most: How many in each list.
    """
    last = names[-1]
    wrong = [case for case in found if case.utterances[-1].errors]
    worst = heapq.nsmallest(
        most, wrong, lambda c: (-c.utterances[-1].rate, -c.utterances[-1].errors)
    )
    lists = [CaseList(f"Worst of {last}", worst, len(wrong))]
    if len(names) > 1:
        losses = [case for case in found if case.gain > 0]
        gains = [case for case in found if case.gain < 0]
        lists += [
            CaseList(
                f"{last} errs more than {names[0]}",
                heapq.nlargest(most, losses, lambda case: case.gain),
                len(losses),
            ),
            CaseList(
                f"{last} errs less than {names[0]}",
                heapq.nsmallest(most, gains, lambda case: case.gain),
                len(gains),
            ),
        ]
    return lists


def alignments_html(lists: Sequence[CaseList], names: Sequence[str], players: Players) -> str:
    """The lists with their alignments, of no more than ``ROOM`` bytes, players aside."""
    parts, room = [LEGEND], ROOM
    for number, one in enumerate(lists):
        articles: list[str] = []
        # What one list leaves, the next ones have.
        share = room // max(1, sum(bool(other.cases) for other in lists[number:]))
        for case in one.cases:
            drawn = _article(case, names)
            size = len(drawn.encode())
            if size > share:
                break
            share, room = share - size, room - size
            part, name = case.parts[-1], case.utterances[-1].id
            recording = part.rows[name].fields.get("audio")
            player = players.player(recording, part.number(name, "start"), part.number(name, "end"))
            articles.append(_article(case, names, player) if player else drawn)
        left = one.total - len(articles)
        said = f"{len(articles):,} of {one.total:,} utterances"
        said += f"; {left:,} are not shown." if left else "."
        parts.append(f"<h3>{escape(one.title)}</h3>{paragraphs([said], 'note')}")
        parts += articles
    return section("Transcripts", *parts)


def _article(case: Case, names: Sequence[str], player: str = "") -> str:
    part, utterance = case.parts[-1], case.utterances[-1]
    fields = part.rows[utterance.id].fields
    about = [part.set, utterance.id]
    if part.system not in names:  # they are two runs of it
        about.insert(0, part.system)
    if fields.get("noise"):
        about.append(str(fields["noise"]))
    if not math.isnan(snr := part.number(utterance.id, "snr")):
        about.append(f"{snr:g} dB")
    if fields.get("error"):
        about.append(f"failed: {fields['error']}")
    return article(
        utterance,
        {name: part.rate for name, part in zip(names, case.parts, strict=True)},
        case.utterances,
        heading=" · ".join(clip(text) for text in about),
        language=part.lang,
        player=player,
    )
