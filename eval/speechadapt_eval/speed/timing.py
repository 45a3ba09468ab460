"""Real-time factor, latency, memory and energy of a system.

meter = Meter(warmup=1)
with meter.loading():
    system = load()
with meter:
    for clip in clips:
        with meter.call(clip.seconds):
            system(clip)
print(meter.speed().rtf)
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np

from speechadapt_eval.errors import EvalError
from speechadapt_eval.speed.energy import Energy, EnergyMeter

_RSS_UNIT = 1 if os.uname().sysname == "Darwin" else 1024  # bytes in what getrusage counts


@dataclass(frozen=True)
class Timing:
    """What one call of a system took.

    Attributes:
        audio_seconds: Length of the audio that went in.
        seconds: Wall-clock time.
        cpu_seconds: CPU time of this process and of its children that ended meanwhile.
        utterances: How many went in; more than one is a batch, whose time is no latency.
    """

    audio_seconds: float
    seconds: float
    cpu_seconds: float = math.nan
    utterances: int = 1


@dataclass(frozen=True)
class Speed:
    """How fast a system is on a set.

    Attributes:
        audio_seconds: Audio of the calls that count.
        seconds: Wall-clock time of these calls.
        rtf: Real-time factor, seconds of compute per second of audio: Σ seconds / Σ audio.
        rtfx: Its inverse: seconds of audio per second of compute.
        p50: Median of the seconds of an utterance; NaN where utterances ran in batches.
        p95: 95th percentile, linearly interpolated.
        p99: 99th percentile.
        batched: Whether some call took several utterances, so that there are no latencies.
        utterances: How many count.
        warmup_utterances: How many were run before and do not count.
        cpu_seconds: CPU time of the calls that count; NaN where not measured.
        load_seconds: Time to load the system, in no other figure; NaN where not measured.
        load_average: Of the machine over the last minute, before and after; empty if not measured.
        peak_memory_bytes: See ``peak_memory``; None where not measured.
        energy: Joules of the machine during the run, warm-up included; None where not measured.
    """

    audio_seconds: float
    seconds: float
    rtf: float
    rtfx: float
    p50: float
    p95: float
    p99: float
    batched: bool
    utterances: int
    warmup_utterances: int = 0
    cpu_seconds: float = math.nan
    load_seconds: float = math.nan
    load_average: tuple[float, ...] = ()
    peak_memory_bytes: int | None = None
    energy: Energy | None = None


class Stopwatch:
    """Wall-clock and CPU seconds of a block: ``with Stopwatch() as watch: ...``.

    Attributes:
        seconds: By the monotonic clock; NaN before the block has ended.
        cpu_seconds: Of this process, all threads, and of its children that ended meanwhile.
    """

    seconds = math.nan
    cpu_seconds = math.nan

    def __enter__(self) -> Stopwatch:
        self._cpu = _cpu_seconds()
        self._start = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = perf_counter() - self._start
        self.cpu_seconds = _cpu_seconds() - self._cpu


@dataclass
class Meter:
    """Time the calls of a system, and what goes on around them.

    Args:
        warmup: So many calls at the beginning are timed but do not count.
    """

    warmup: int = 0
    timings: list[Timing] = field(default_factory=list, init=False)
    load_seconds: float = field(default=math.nan, init=False)
    load_average: tuple[float, ...] = field(default=(), init=False)
    _energy: EnergyMeter = field(default_factory=EnergyMeter, init=False, repr=False)

    def __enter__(self) -> Meter:
        self._energy.__enter__()
        self._before = os.getloadavg()[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.load_average = (self._before, os.getloadavg()[0])
        self._energy.__exit__(kind, error, trace)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Time what loads the system."""
        with Stopwatch() as watch:
            yield
        self.load_seconds = watch.seconds

    @contextmanager
    def call(self, audio_seconds: float, utterances: int = 1) -> Iterator[Stopwatch]:
        """Time one call with that much audio; a call that fails is not kept.

        On a GPU the call must wait for its result, or only the launch is timed.
        """
        with Stopwatch() as watch:
            yield watch
        self.timings.append(Timing(audio_seconds, watch.seconds, watch.cpu_seconds, utterances))

    def speed(self) -> Speed:
        """Summarise.

        Raises:
            EvalError: No call is left after the warm-up, or its audio is empty.
        """
        return summarize(
            self.timings,
            warmup=self.warmup,
            load_seconds=self.load_seconds,
            load_average=self.load_average,
            peak_memory_bytes=peak_memory(),
            energy=self._energy.energy,
        )


def summarize(
    timings: Sequence[Timing],
    *,
    warmup: int = 0,
    load_seconds: float = math.nan,
    load_average: tuple[float, ...] = (),
    peak_memory_bytes: int | None = None,
    energy: Energy | None = None,
) -> Speed:
    """Summarise calls in the order in which they were made.

    Args:
        timings: One for each call.
        warmup: So many calls at the beginning do not count.
        load_seconds: As in ``Speed``, and so the others.
        load_average: Before and after.
        peak_memory_bytes: Bytes.
        energy: Joules.

    Raises:
        EvalError: No call is left after the warm-up, or its audio is empty.
    """
    counted = timings[warmup:]
    audio = math.fsum(timing.audio_seconds for timing in counted)
    if warmup < 0 or not audio > 0:
        raise EvalError(
            f"{len(timings)} timed calls, {warmup} of them for warm-up, leave {audio:g} s of "
            "audio: no speed can be given; time more utterances or warm up with fewer"
        )
    seconds = math.fsum(timing.seconds for timing in counted)
    batched = any(timing.utterances != 1 for timing in counted)
    p50, p95, p99 = (math.nan,) * 3 if batched else percentiles([t.seconds for t in counted])
    return Speed(
        audio_seconds=audio,
        seconds=seconds,
        rtf=seconds / audio,
        rtfx=audio / seconds if seconds else math.inf,
        p50=p50,
        p95=p95,
        p99=p99,
        batched=batched,
        utterances=sum(timing.utterances for timing in counted),
        warmup_utterances=sum(timing.utterances for timing in timings[:warmup]),
        cpu_seconds=math.fsum(timing.cpu_seconds for timing in counted),
        load_seconds=load_seconds,
        load_average=load_average,
        peak_memory_bytes=peak_memory_bytes,
        energy=energy,
    )


def percentiles(
    values: Sequence[float] | np.ndarray, percents: Sequence[float] = (50, 95, 99)
) -> list[float]:
    """Percentiles of ``values`` ``[n]``, linearly interpolated (numpy's); NaN of no value."""
    if not len(values):
        return [math.nan] * len(percents)
    return [float(value) for value in np.percentile(np.asarray(values, float), percents)]


def peak_memory() -> int:
    """Bytes of resident memory at the most since this process began.

    The larger of two figures: the peaks of this process and its living descendants together
    (they need not have coincided, and pages that they share count for each), and the peak of the
    largest child that has ended. The two are not added: the kernel takes the memory of the
    parent at the start of a child as the child's own.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _RSS_UNIT
    return max(ended, sum(map(_peak_of, [os.getpid(), *_descendants(os.getpid())])))


def _cpu_seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return math.fsum(part for usage in used for part in (usage.ru_utime, usage.ru_stime))


def _descendants(pid: int) -> Iterator[int]:
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in listing.read_text().split()]
        except OSError:  # the thread is gone
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def _peak_of(pid: int) -> int:
    """Peak of one process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        itself = pid == os.getpid()  # a system without /proc
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT if itself else 0
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes[0]) * 1024 if kilobytes else 0
