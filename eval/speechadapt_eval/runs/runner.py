"""Systems transcribe test sets; what was transcribed before is taken from the cache.

Every clip has a key: the system's fingerprint, the sound's bytes and the language. Results are
stored as they come, so a run that was killed goes on where it stopped. Batches are cut from the
whole set, not from what is left of it, so that they are the same after a restart.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechadapt_eval.errors import EvalError
from speechadapt_eval.io import Row
from speechadapt_eval.outputs import as_json
from speechadapt_eval.record import anonymous
from speechadapt_eval.runs.cache import Cache
from speechadapt_eval.runs.clips import Clip, ClipError, duration
from speechadapt_eval.runs.folder import RECORD, TABLES, Decoding, Run, RunSet, RunSystem
from speechadapt_eval.runs.sets import DataSet, Item
from speechadapt_eval.runs.systems.files import json_sha256
from speechadapt_eval.runs.systems.protocol import (
    Answer,
    OpenSystem,
    Settings,
    System,
    SystemDown,
    batches,
    transcribe_all,
)
from speechadapt_eval.runs.systems.registry import Spec, reason, sentence
from speechadapt_eval.speed.energy import Energy, EnergyMeter
from speechadapt_eval.speed.timing import Stopwatch, peak_memory

ON_ERROR = ("stop", "empty")
_FORMAT = 1  # of what the cache holds
_BATCH_SECONDS = 300.0  # of audio that a system gets at a time, and is lost by a kill
_BATCH_CLIPS = 256
_NO_ENERGY = Energy(None, None)
_FACTS = ("parameters", "trainable", "load_seconds", "threads")
_OURS = {"id", "ref", "hyp", "lang", "audio", "duration", "start", "end", "seconds", "error"}


@dataclass(frozen=True)
class Options:
    """How a run is made.

    Attributes:
        settings: For all systems.
        one_by_one: Measure latencies: no batches, one clip at a time; what was computed otherwise
            is computed again.
        on_error: What the failure of a clip does: ``stop`` the run, or an ``empty`` hypothesis.
    """

    settings: Settings = field(default_factory=Settings)
    one_by_one: bool = False
    on_error: str = "stop"


@dataclass(frozen=True)
class _Prepared:
    """An utterance and what can be known of it before any system: its sound's hash and length."""

    item: Item
    sound: str
    seconds: float | None
    fault: str = ""


@dataclass(frozen=True)
class _Result:
    """What a system made of a clip; without ``fault`` it is stored."""

    text: str = ""
    seconds: float = 0.0  # of compute; a share of its batch's where not alone
    alone: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


def check_target(out: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        EvalError: It does.
    """
    if out.exists() and not out.is_dir():
        raise EvalError(f"--out {out}: is no folder; give a new one, or that of an earlier run")
    if out.is_dir() and not (out / RECORD).is_file() and any(out.iterdir()):
        raise EvalError(
            f"--out {out}: holds something that is no run (there is no {RECORD}); give a new "
            "folder, or that of an earlier run"
        )


def run(
    specs: Sequence[Spec],
    sets: Sequence[DataSet],
    out: Path,
    record: Mapping[str, Any],
    options: Options,
    cache_folder: Path | None = None,
) -> Run:
    """Let every system transcribe every set, and write the folder of the run.

    Args:
        specs: The systems; the first is the baseline.
        sets: The test sets.
        out: The folder, made if it is not there.
        record: What ``run.json`` is to say beside systems and sets.
        options: How.
        cache_folder: Where results are kept; by default in ``out``.

    Returns:
        The run as it is on disk.

    Raises:
        EvalError: A system cannot be opened, a clip fails and ``on_error`` is ``stop``, or
            something cannot be written. What was finished is kept.
    """
    check_target(out)
    # Made first, so that a mistake in the last one is told before the first has worked an hour.
    systems = [_systems(spec, sets) for spec in specs]
    run = Run(
        out,
        tuple(RunSystem(spec.name, anonymous(spec.text)) for spec in specs),
        tuple(RunSet(t.name, anonymous(t.path), t.language, len(t.items)) for t in sets),
        dict(record),
    )
    # What an earlier run left would not belong to this one; the cache has what can be used.
    shutil.rmtree(out / "hyps", ignore_errors=True)
    for table in TABLES:
        run.table_path(table).unlink(missing_ok=True)
    prepared = {t.name: _prepare(t) for t in sets}
    run = replace(run, sets=tuple(replace(s, seconds=_total(prepared[s.name])) for s in run.sets))
    run.write()
    with Cache(cache_folder or out / "cache") as cache:
        for index, (spec, by_set) in enumerate(zip(specs, systems, strict=True)):
            facts: dict[str, Any] = {}
            for system, group in groupby(sets, key=lambda one: by_set[one.name]):
                with _Job(system, spec.name, cache, options) as job:
                    for one in group:
                        rows, took = job.decode(prepared[one.name], one.name)
                        run.write_rows(spec.name, one.name, rows, took)
                    facts = facts or job.facts
            known = list(run.systems)
            known[index] = replace(known[index], **{k: facts[k] for k in _FACTS if k in facts})
            run = replace(run, systems=tuple(known))
            run.write()
    return run


def _systems(spec: Spec, sets: Sequence[DataSet]) -> dict[str, System]:
    """The system for each set, by name: the same one unless it depends on the language."""
    made: dict[str | None, System] = {}
    for one in sets:
        if (language := one.language if spec.needs_lang else None) not in made:
            made[language] = spec.system(language)
    return {one.name: made[one.language if spec.needs_lang else None] for one in sets}


class _Job:
    """One system on some sets: opened when a clip is not in the cache."""

    def __init__(self, system: System, name: str, cache: Cache, options: Options):
        self._system, self._name, self._cache, self._options = system, name, cache, options
        with sentence(f"system {name!r}"):
            self._fingerprint = json_sha256([_FORMAT, dict(system.fingerprint())])
        self._open: OpenSystem | None = None
        self._warmed = 0
        self._energy = _NO_ENERGY
        self.facts: dict[str, Any] = self._cache.get(self._key("opened")) or {}

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
            gc.collect()

    def decode(self, items: Sequence[_Prepared], set_name: str) -> tuple[list[Row], Decoding]:
        """Rows in the order of the set, and what they took."""
        keys = [self._key("clip", p.sound, p.item.clip.lang) for p in items]
        found: dict[str, _Result] = {}
        for key, one in zip(keys, items, strict=True):
            if one.fault:
                found[key] = self._failed(one.item.clip, one.fault)
            elif key not in found and (entry := self._cache.get(key)) is not None:
                result = _Result(**entry)
                if result.alone or not self._options.one_by_one:
                    found[key] = result
        new = dict(zip(keys, items, strict=True))
        cached = len(found)
        with tqdm(
            total=len(new), initial=cached, desc=f"{self._name} {set_name}", unit="utt",
            disable=None,
        ) as bar:  # fmt: skip
            if cached < len(new):
                for key, result in self._compute(new, dict(found)):
                    clip = new[key].item.clip
                    found[key] = self._failed(clip, result.fault) if result.fault else result
                    bar.update()
        rows = [_row(one, found[key]) for key, one in zip(keys, items, strict=True)]
        return rows, self._took(items, [found[key] for key in keys], cached < len(new), keys)

    def _compute(
        self, items: Mapping[str, _Prepared], found: Mapping[str, _Result]
    ) -> Iterator[tuple[str, _Result]]:
        """Yield what is not found, each stored before it is yielded."""
        system = self._open
        if system is None:
            system = self._opened(next(p.item.clip for k, p in items.items() if k not in found))
        with EnergyMeter() as meter:
            yield from self._results(system, items, found)
        # Of a part it would say nothing, and of a server nothing is known.
        if not found and not getattr(system, "remote", False):
            self._energy = meter.energy

    def _results(
        self, system: OpenSystem, items: Mapping[str, _Prepared], found: Mapping[str, _Result]
    ) -> Iterator[tuple[str, _Result]]:
        settings = self._options.settings
        if batches(system) and not self._options.one_by_one:
            for chunk in _chunks(items):
                todo = {key: items[key] for key in chunk if key not in found}
                if todo:
                    yield from self._store(self._batch(system, todo))
            return
        todo = {key: one for key, one in items.items() if key not in found}
        jobs = 1 if self._options.one_by_one else min(settings.jobs, len(todo))
        if jobs == 1 or not getattr(system, "concurrent", False):
            for key, one in todo.items():
                yield from self._store({key: self._one(system, one.item.clip)})
            return
        with ThreadPoolExecutor(jobs) as pool:
            waiting = {
                pool.submit(self._one, system, one.item.clip, jobs): key
                for key, one in todo.items()
            }
            try:
                for future in as_completed(waiting):
                    yield from self._store({waiting[future]: future.result()})
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _opened(self, first: Clip) -> OpenSystem:
        """Open the system, transcribe the first clip for nothing."""
        _forget_peak()
        with sentence(f"system {self._name!r} cannot be opened"), Stopwatch() as watch:
            system = self._open = self._system.open(self._options.settings)
        self.facts = dict(system.facts) | {"load_seconds": round(watch.seconds, 3)}
        self._cache.put({self._key("opened"): self.facts})
        self._warmed = getattr(system, "warmup", 1)
        for _ in range(self._warmed):
            self._one(system, first)
        return system

    def _one(self, system: OpenSystem, clip: Clip, jobs: int = 1) -> _Result:
        loaded, fault = _tried(clip.loaded)
        if fault:
            return _Result(fault=fault)
        with Stopwatch() as watch:
            answer, fault = _tried(lambda: system.transcribe(loaded))
        if fault:
            return _Result(fault=fault)
        # Of several at a time, each takes a part of the machine for as long.
        return _result(answer, watch.seconds / jobs, alone=jobs == 1)

    def _batch(self, system: OpenSystem, todo: Mapping[str, _Prepared]) -> dict[str, _Result]:
        clips, fault = _tried(lambda: [one.item.clip.loaded() for one in todo.values()])
        with Stopwatch() as watch:
            if not fault:
                answers, fault = _tried(lambda: transcribe_all(system, clips))
        if fault:  # one of them spoils the batch: find out which
            single = {key: self._one(system, one.item.clip) for key, one in todo.items()}
            return {key: replace(result, alone=False) for key, result in single.items()}
        lengths = [one.seconds or 1.0 for one in todo.values()]
        scale = watch.seconds / math.fsum(lengths)
        return {
            key: _result(answer, length * scale, alone=False)
            for key, answer, length in zip(todo, answers, lengths, strict=True)
        }

    def _store(self, results: Mapping[str, _Result]) -> Iterator[tuple[str, _Result]]:
        good = {key: result for key, result in results.items() if not result.fault}
        self._cache.put({key: _entry(result) for key, result in good.items()})
        yield from results.items()

    def _failed(self, clip: Clip, fault: str) -> _Result:
        if self._options.on_error == "stop":
            raise EvalError(
                f"system {self._name!r} failed on {clip.id!r}: {fault}; mend it, or go on with "
                "--on-error empty, which counts an empty text there"
            )
        return _Result(fault=fault)

    def _took(
        self, items: Sequence[_Prepared], results: Sequence[_Result], new: bool, keys: list[str]
    ) -> Decoding:
        fingerprint = json_sha256([self._fingerprint, *keys])
        key = self._key("decoding", fingerprint)
        if new:
            remote = getattr(self._open, "remote", False)
            measured: dict[str, Any] = {
                "warmup_utterances": self._warmed,
                "load_average": round(os.getloadavg()[0], 2),
                "peak_memory_bytes": None if remote else peak_memory(),
                "cpu_joules": self._energy.cpu,
                "gpu_joules": self._energy.gpu,
            }
            self._energy = _NO_ENERGY
            self._cache.put({key: measured})
            self._warmed = 0  # further sets find it warm
        else:
            measured = self._cache.get(key) or {}
        good = [(p, r) for p, r in zip(items, results, strict=True) if not r.fault]
        return Decoding(
            seconds=math.fsum(r.seconds for _, r in good) if good else None,
            audio_seconds=_total([p for p, _ in good]) if good else None,
            batched=not all(r.alone for _, r in good),
            fingerprint=fingerprint,
            **measured,
        )

    def _key(self, *what: Any) -> str:
        return json_sha256([self._fingerprint, *what])


def _prepare(one: DataSet) -> list[_Prepared]:
    """Read the sound of each utterance once, for its hash and length."""
    prepared = []
    for item in tqdm(one.items, desc=f"reading {one.name}", unit="utt", disable=None):
        given = item.fields.get("duration")
        try:
            data = item.clip.data()
        except ClipError as error:
            prepared.append(_Prepared(item, item.clip.id, None, reason(error)))
            continue
        seconds = float(given) if isinstance(given, int | float) else duration(data)
        prepared.append(_Prepared(item, hashlib.sha256(data).hexdigest(), seconds))
    return prepared


def _total(items: Sequence[_Prepared]) -> float | None:
    """Seconds of audio; None if one is not known."""
    seconds = [one.seconds for one in items]
    return None if None in seconds else math.fsum(s for s in seconds if s is not None)


def _chunks(items: Mapping[str, _Prepared]) -> Iterator[list[str]]:
    chunk: list[str] = []
    seconds = 0.0
    for key, one in items.items():
        length = one.seconds or 0.0
        if chunk and (len(chunk) >= _BATCH_CLIPS or seconds + length > _BATCH_SECONDS):
            yield chunk
            chunk, seconds = [], 0.0
        chunk.append(key)
        seconds += length
    if chunk:
        yield chunk


def _tried(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, or None and why not. What stops the whole run passes."""
    try:
        return call(), ""
    except SystemDown:
        raise
    except Exception as error:  # a system may raise anything; it is told with the clip
        return None, reason(error)


def _result(answer: Answer, seconds: float, *, alone: bool) -> _Result:
    more = dict(answer) if isinstance(answer, Mapping) else {"text": answer}
    text = more.pop("text", None)
    if not isinstance(text, str):
        return _Result(fault=f"the answer is {answer!r:.100}, not a text")
    try:
        more = json.loads(as_json({k: v for k, v in more.items() if k not in _OURS}))
    except (TypeError, ValueError) as error:
        return _Result(fault=f"the answer has fields that JSON has not ({error})")
    return _Result(_one_line(text), seconds, alone, more)


def _one_line(text: str) -> str:
    """Line ends become spaces: a transcript is one line, whatever a program prints."""
    text = text.encode("utf-8", "backslashreplace").decode()  # half characters cannot be written
    return re.sub(r"\s*[\r\n]+\s*", " ", text.strip())


def _entry(result: _Result) -> dict[str, Any]:
    return {
        "text": result.text,
        "seconds": result.seconds,
        "alone": result.alone,
        "more": dict(result.more),
    }


def _row(one: _Prepared, result: _Result) -> Row:
    clip = one.item.clip
    fields: dict[str, Any] = {
        **{name: value for name, value in one.item.fields.items() if name not in _OURS},
        "duration": one.seconds,
        "audio": clip.audio,
        **({} if clip.start is None else {"start": clip.start}),
        **({} if clip.end is None else {"end": clip.end}),
        "seconds": result.seconds if result.alone and not result.fault else None,
        **result.more,
    }
    if result.fault:
        fields["error"] = result.fault
    return Row(clip.id, one.item.ref, result.text, clip.lang, fields)


def _forget_peak() -> None:
    """Let the peak of memory count from here (Linux); elsewhere it is that of the process."""
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
