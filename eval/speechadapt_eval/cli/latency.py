"""``speechadapt-eval latency``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from speechadapt_eval.cli.scoring import add_options, score_texts
from speechadapt_eval.cli.speakers import speakers_of
from speechadapt_eval.errors import EvalError, some
from speechadapt_eval.io import read_texts
from speechadapt_eval.outputs import as_json, write_csv, write_json
from speechadapt_eval.report.table import percent, percent_range, render
from speechadapt_eval.speed.events import Stream, read_ctm, read_events, read_segments
from speechadapt_eval.speed.latency import (
    PERCENTS,
    Part,
    StreamLAAL,
    StreamLatency,
    Summary,
    Words,
    measure,
    stream_laal,
    summarize,
)
from speechadapt_eval.speed.timing import percentiles
from speechadapt_eval.statistics.bootstrap import Paired, paired_difference
from speechadapt_eval.transcripts.normalize import normalizer
from speechadapt_eval.transcripts.wer import ErrorRate

EXAMPLES = """
examples:
  speechadapt-eval latency events.jsonl --ref data/be/test/text
  speechadapt-eval latency events.jsonl --ref text --offline offline/text --out tables
  speechadapt-eval latency events.jsonl --ref text --ctm words.ctm
  speechadapt-eval latency talks.jsonl --ref text --segments segments      long recordings

events.jsonl has one object a line, in the order in which things happened:
  {"utterance": "u1", "audio_s": 1.0, "wall_s": 1.21, "text": "добры", "final": false}
audio_s: seconds of audio given so far; wall_s: seconds since the audio began to be sent, in real
time; text: the whole text shown now; final: true at the last event of the utterance.
"""

_COLUMNS = (
    "utterance", "audio_seconds", "partials", "words", "n_ref", "first_partial", "finalisation",
    "laal", "laal_ca", "al", "al_ca", "word_delay_p50", "word_delay_p90", "word_delay_p95",
    "word_delay_p99", "after_word_p50", "after_word_p90", "after_word_p95", "after_word_p99",
    "unstable_words", "unstable_partials", "rtf", "compute_p99",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latency``."""
    add_options(parser)
    parser.add_argument("events", type=Path, metavar="EVENTS")
    parser.add_argument(
        "--ref", type=Path, required=True, help="Kaldi text or utts.jsonl of all utterances"
    )
    parser.add_argument(
        "--offline", type=Path, metavar="HYP", help="transcripts without streaming, to compare"
    )
    parser.add_argument(
        "--segments",
        type=Path,
        metavar="FILE",
        help="Kaldi's segments: the events are of recordings, the references of their segments "
        "(gives StreamLAAL)",
    )
    parser.add_argument(
        "--ctm",
        type=Path,
        metavar="FILE",
        help="when each reference word was spoken, for the delay after its end",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write latency.csv, .json, latency_utt.csv (a row an utterance), stream_pairs.csv",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> str:
    streams = read_events(args.events)
    refs = read_texts(args.ref, "ref")
    words = _words(args.unit, args.normalize)
    parts: dict[str, list[Part]] = {}
    if args.segments:
        parts, refs = _recordings(args, streams, refs, words)
    elif strangers := streams.keys() - refs.keys():
        raise EvalError(
            f"{args.events}: {len(strangers)} utterances are not in {args.ref} "
            f"({some(strangers)}): give the references of what was streamed"
        )
    rate = score_texts(args, refs, {name: stream.text for name, stream in streams.items()})
    spoken = _spoken(args.ctm, streams, words)
    measured = [
        measure(stream, words(refs[name]), words, spoken.get(name, ()))
        for name, stream in streams.items()
    ]
    long_form = None
    if parts:
        those = [parts[name] for name in streams]
        long_form = stream_laal(list(streams.values()), measured, those)
    summary = summarize(measured)
    pair = _against_offline(args, rate, refs)
    facts = {"summary": summary, "stream_laal": long_form, "offline": pair}
    found = {"wer": rate.rate} | {key: asdict(value) for key, value in facts.items() if value}
    if args.out:
        flat = {"wer": rate.rate} | _flat(summary, long_form)
        write_csv(args.out / "latency.csv", list(flat), [list(flat.values())])
        write_csv(args.out / "latency_utt.csv", _COLUMNS, map(_row, measured))
        write_json(args.out / "latency.json", found)
        if pair:
            columns = {"stream": rate.rate, "offline": rate.rate - pair.delta} | asdict(pair)
            write_csv(args.out / "stream_pairs.csv", list(columns), [list(columns.values())])
    return as_json(found) if args.json else _page(rate, summary, long_form, pair)


def _words(unit: str, normalize: str) -> Words:
    """Latency counts words; with ``--unit char`` letters, for scripts that have no spaces."""
    clean = normalizer(normalize)
    if unit == "char":
        return lambda text: [letter for letter in clean(text) if not letter.isspace()]
    return lambda text: clean(text).split()


def _spoken(
    path: Path | None, streams: Mapping[str, Stream], words: Words
) -> dict[str, list[tuple[str, float]]]:
    """The words of each stream as they are counted, and where each was spoken to its end."""
    if path is None:
        return {}
    table = read_ctm(path)
    if lost := streams.keys() - table.keys():
        raise EvalError(f"{path} has no word of {len(lost)} streams ({some(lost)}): align them too")
    return {
        name: [(word, end) for text, end in table[name] for word in words(text)] for name in streams
    }


def _recordings(
    args: argparse.Namespace,
    streams: Mapping[str, Stream],
    refs: Mapping[str, str],
    words: Words,
) -> tuple[dict[str, list[Part]], dict[str, str]]:
    """The segments of each recording, and the whole reference of each."""
    segments = sorted(read_segments(args.segments), key=lambda part: (part.recording, part.start))
    parts: dict[str, list[Part]] = {}
    texts: dict[str, list[str]] = {}
    for segment in segments:
        if segment.id not in refs:
            raise EvalError(f"{args.segments}: segment {segment.id!r} is not in {args.ref}")
        text = refs[segment.id]
        part = Part(segment.start, segment.end - segment.start, tuple(words(text)))
        parts.setdefault(segment.recording, []).append(part)
        texts.setdefault(segment.recording, []).append(text)
    if odd := streams.keys() ^ parts.keys():
        raise EvalError(
            f"{args.events} and {args.segments} have different recordings ({some(odd)}): "
            "stream and segment the same ones"
        )
    return parts, {name: " ".join(those) for name, those in texts.items()}


def _against_offline(
    args: argparse.Namespace, rate: ErrorRate, refs: dict[str, str]
) -> Paired | None:
    if not args.offline:
        return None
    hyps = read_texts(args.offline, "hyp")
    offline = score_texts(args, {u.id: refs[u.id] for u in rate.utterances}, hyps)
    return paired_difference(offline, rate, speakers_of(args), samples=args.samples, seed=args.seed)


def _flat(summary: Summary, long_form: StreamLAAL | None) -> dict[str, object]:
    """The summary in one row: a column for each percentile."""
    flat: dict[str, object] = {}
    for name, value in asdict(summary).items():
        if isinstance(value, list):
            flat |= {f"{name}_p{n}": one for n, one in zip(PERCENTS, value, strict=True)}
        else:
            flat[name] = value
    if long_form:
        flat |= {"stream_laal": long_form.audio, "stream_laal_ca": long_form.wall}
    return flat


def _row(one: StreamLatency) -> list[object]:
    return [
        one.id, one.seconds, one.partials, len(one.words), one.n_ref, one.first_partial,
        one.finalisation, one.audio.laal, one.wall.laal, one.audio.al, one.wall.al,
        *percentiles(one.wall.words, PERCENTS), *percentiles(one.after_word, PERCENTS),
        one.unstable_words, one.unstable_partials, one.rtf, *percentiles(one.compute, [99]),
    ]  # fmt: skip


def _page(
    rate: ErrorRate, summary: Summary, long_form: StreamLAAL | None, pair: Paired | None
) -> str:
    delays = {
        "first partial": summary.first_partial,
        "finalisation": summary.finalisation,
        "word delay": summary.word_delay,
        "  by the audio given": summary.word_delay_audio,
    }
    if not math.isnan(summary.after_word[0]):
        delays["after the spoken word"] = summary.after_word
    spread = render(
        ["seconds", *(f"p{number}" for number in PERCENTS)],
        [[title, *map(_seconds, values)] for title, values in delays.items()],
    )
    laal = [("LAAL", summary.laal, summary.laal_ca), ("AL", summary.al, summary.al_ca)]
    if long_form:
        laal.insert(0, ("StreamLAAL", long_form.audio, long_form.wall))
    means = render(
        ["seconds, mean", "by audio", "computation-aware"],
        [[name, _seconds(audio), _seconds(wall)] for name, audio, wall in laal],
    )
    lines = [
        f"{summary.utterances} streams, {summary.audio_seconds:.1f} s of audio, "
        f"{summary.partials} partials, RTF {summary.rtf:.3f}",
        rate.kaldi_line(),
        "",
        spread,
        means,
        f"unstable: {percent(summary.unstable_words)} words taken back per 100 final words, "
        f"by {percent(summary.unstable_partials)} % of the partials",
        f"computation per event: p99 {_seconds(summary.compute_p99)} s; the audio advances by "
        f"{_seconds(summary.chunk)} s",
    ]
    if summary.empty:
        lines.append(f"{summary.empty} streams have an empty text and no delay: left out of means.")
    if long_form and long_form.empty:
        lines.append(f"{long_form.empty} segments got no word: left out of StreamLAAL.")
    if not summary.partials:
        lines.append("No partials: this system was not streaming.")
    if pair:
        ends = percent_range(pair.low, pair.high, signed=True)
        lines.append(
            f"stream - offline: %{rate.name} {percent(pair.delta, signed=True)}, "
            f"{100 * pair.level:g} % CI {ends} {pair.method}"
            + (f" ({pair.note})" if pair.note else "")
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
