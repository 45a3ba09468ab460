"""Degraded or enhanced audio against its clean reference: SI-SDR, STOI, PESQ, ViSQOL.

The two must run in step, sample by sample. Everything is computed at 16 kHz, mono.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechadapt_eval.audio.sources import RATE, Source, Unscorable, is_silent, read_audio
from speechadapt_eval.errors import EvalError, choose, some

SLACK_S = 0.1  # lengths that differ by no more are cut to the shorter

# Reference and degraded [samples] at 16 kHz -> figure; raises Unscorable.
Metric = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class PairScores:
    """Figures of one pair.

    Attributes:
        id: Of both sides.
        group: Of the degraded side.
        seconds: Compared; NaN if one side cannot be read.
        values: By metric; NaN where ``reasons`` says why.
        reasons: By metric.
    """

    id: str
    group: str
    seconds: float
    values: dict[str, float]
    reasons: dict[str, str]


def si_sdr(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, means removed.

    Le Roux et al., "SDR – half-baked or well done?", ICASSP 2019, arXiv:1811.02508.

    Args:
        reference: ``[samples]``.
        degraded: ``[samples]``.

    Raises:
        Unscorable: The two are the same up to a factor: the ratio is infinite. Or they have
            nothing in common: it is minus infinity.
    """
    reference = reference - reference.mean()
    degraded = degraded - degraded.mean()
    target = reference * (degraded @ reference) / (reference @ reference)
    noise = degraded - target
    signal, distortion = float(target @ target), float(noise @ noise)
    if distortion <= 1e-20 * signal:
        raise Unscorable("identical up to a factor: infinite")
    if not signal:
        raise Unscorable("nothing in common: minus infinity")
    return 10 * math.log10(signal / distortion)


def stoi(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Short-time objective intelligibility, 0 to 1 (pystoi).

    Taal et al., IEEE TASLP 19(7), 2011.

    Args:
        reference: ``[samples]``, 16 kHz.
        degraded: ``[samples]``, 16 kHz.

    Raises:
        Unscorable: Less than 30 frames (0.4 s) of the reference are not silence.
        EvalError: pystoi is not installed.
    """
    pystoi = _installed("pystoi", "speechadapt[mos]")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # it would return 1e-5 and only warn
        try:
            return float(pystoi.stoi(reference, degraded, RATE))
        except RuntimeWarning as error:
            raise Unscorable("less than 0.4 s that is not silence") from error


def pesq(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Wide-band PESQ, MOS-LQO about 1.0 to 4.64 (ITU-T P.862.2; package ``pesq``).

    Args:
        reference: ``[samples]``, 16 kHz.
        degraded: ``[samples]``, 16 kHz.

    Raises:
        Unscorable: Shorter than 0.25 s, or no speech was found in it.
        EvalError: pesq is not installed.
    """
    package = _installed("pesq", "speechadapt[pesq]")
    try:
        return float(package.pesq(RATE, reference, degraded, "wb"))
    except package.BufferTooShortError as error:
        raise Unscorable("shorter than 0.25 s") from error
    except package.NoUtterancesError as error:
        raise Unscorable("no speech found in it") from error


def visqol(reference: np.ndarray, degraded: np.ndarray) -> float:
    """ViSQOL v3 for speech, MOS-LQO 1 to 5 (package ``visqol-python``, polynomial mapping).

    Chinen et al., QoMEX 2020, arXiv:2004.09584.

    Args:
        reference: ``[samples]``, 16 kHz.
        degraded: ``[samples]``, 16 kHz.

    Raises:
        Unscorable: ViSQOL refuses the pair.
        EvalError: visqol-python is not installed.
    """
    api = _installed("visqol", "visqol-python").VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    try:
        return float(api.measure_from_arrays(reference, degraded, RATE).moslqo)
    except (ValueError, IndexError, RuntimeError) as error:
        raise Unscorable(f"ViSQOL refuses it ({error})") from error


METRICS: dict[str, Metric] = {"si_sdr": si_sdr, "stoi": stoi, "pesq": pesq, "visqol": visqol}
STANDARD = ("si_sdr", "stoi")


def match(reference: Sequence[Source], degraded: Sequence[Source]) -> list[tuple[Source, Source]]:
    """Pair sources by id; one file on each side is a pair whatever the names.

    Raises:
        EvalError: An id is on one side only, or twice on one.
    """
    if len(reference) == len(degraded) == 1:
        return [(reference[0], degraded[0])]
    sides = []
    for name, sources in (("reference", reference), ("degraded", degraded)):
        table = {source.id: source for source in sources}
        if len(table) < len(sources):
            raise EvalError(f"ids of the {name} audio are not unique: give one folder a side")
        sides.append(table)
    for name, only in (
        ("reference", sides[1].keys() - sides[0].keys()),
        ("degraded", sides[0].keys() - sides[1].keys()),
    ):
        if only:
            raise EvalError(f"{len(only)} have no {name} audio ({some(only)}); ids must be equal")
    return [(sides[0][source.id], source) for source in degraded]


def compare(
    pairs: Iterable[tuple[Source, Source]], metrics: Sequence[str] = STANDARD
) -> Iterator[PairScores]:
    """Score pairs, a row for each, in their order.

    Args:
        pairs: From ``match``.
        metrics: Names of ``METRICS``.

    Raises:
        EvalError: A metric is unknown or not installed.
    """
    for name in metrics:
        choose("metric", name, METRICS)
    for clean, other in pairs:
        try:
            reference, degraded = _aligned(clean, other)
        except Unscorable as error:
            nothing = dict.fromkeys(metrics, math.nan)
            why = dict.fromkeys(metrics, str(error))
            yield PairScores(other.id, other.group, math.nan, nothing, why)
            continue
        values, reasons = _figures(reference, degraded, metrics)
        yield PairScores(other.id, other.group, len(reference) / RATE, values, reasons)


def mean_values(rows: Sequence[PairScores], metric: str) -> tuple[float, int]:
    """Mean of a metric over the pairs that have it, and their number; NaN and 0 if none has."""
    values = [row.values[metric] for row in rows if metric not in row.reasons]
    return (float(np.mean(values)) if values else math.nan), len(values)


def _aligned(clean: Source, other: Source) -> tuple[np.ndarray, np.ndarray]:
    sides = []
    for name, source in (("reference", clean), ("degraded", other)):
        try:
            samples = read_audio(source).at_16_khz()
        except Unscorable as error:
            raise Unscorable(f"{name} {error}") from error
        if is_silent(samples):
            raise Unscorable(f"{name} silent")
        sides.append(samples)
    lengths = [len(side) / RATE for side in sides]
    if abs(lengths[0] - lengths[1]) > SLACK_S:
        raise Unscorable(f"lengths differ: {lengths[0]:.2f} and {lengths[1]:.2f} s")
    shorter = min(map(len, sides))
    return sides[0][:shorter], sides[1][:shorter]


def _figures(
    reference: np.ndarray, degraded: np.ndarray, metrics: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in metrics:
        try:
            values[name] = METRICS[name](reference, degraded)
        except Unscorable as error:
            values[name] = math.nan
            reasons[name] = str(error)
    return values, reasons


def _installed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EvalError(f"{module} is not installed: pip install '{package}'") from error
