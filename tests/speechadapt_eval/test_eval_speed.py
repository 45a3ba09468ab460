"""Timing, memory, energy, and the record of a run."""

import getpass
import json
import math
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import speechadapt_eval.record as record_module
from speechadapt_eval.errors import EvalError
from speechadapt_eval.record import run_record
from speechadapt_eval.speed.energy import EnergyMeter
from speechadapt_eval.speed.timing import (
    Meter,
    Stopwatch,
    Timing,
    peak_memory,
    percentiles,
    summarize,
)


def test_stopwatch_tells_work_from_waiting():
    with Stopwatch() as waiting:
        time.sleep(0.2)
    assert 0.2 <= waiting.seconds < 1 and waiting.cpu_seconds < 0.1
    with Stopwatch() as working:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    assert 0.19 <= working.cpu_seconds <= working.seconds + 0.05


def test_cpu_time_of_children_counts():
    code = "import time\nwhile time.process_time() < 0.3: pass"
    with Stopwatch() as watch:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert watch.cpu_seconds > 0.25


def test_speed_drops_the_warmup_and_pools():
    timings = [Timing(1, 50.0)] + [Timing(a, s, 0.5) for a, s in ((2, 1.0), (4, 1.0), (4, 3.0))]
    speed = summarize(timings, warmup=1, load_seconds=9.0)
    assert (speed.audio_seconds, speed.seconds, speed.utterances) == (10, 5, 3)
    assert speed.rtf == 0.5 and speed.rtfx == 2.0  # the mean of single factors would be 0.5 too
    assert summarize(timings[1:3]).rtf == 2 / 6  # here it would be 0.375
    assert (speed.warmup_utterances, speed.load_seconds, speed.cpu_seconds) == (1, 9.0, 1.5)
    assert (speed.p50, speed.batched) == (1.0, False)


def test_time_of_a_batch_is_no_latency():
    speed = summarize([Timing(8, 2.0, utterances=4), Timing(2, 0.5)])
    assert speed.batched and speed.rtf == 0.25 and speed.utterances == 5
    assert all(math.isnan(value) for value in (speed.p50, speed.p95, speed.p99))


@pytest.mark.parametrize("warmup", [2, 3, -1])
def test_nothing_left_to_time(warmup):
    with pytest.raises(EvalError, match=f"2 timed calls, {warmup} of them for warm-up"):
        summarize([Timing(1, 1), Timing(1, 1)], warmup=warmup)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_by_their_definition(values, percent):
    """Between the order statistics at rank (n - 1) p, linearly."""
    ordered = sorted(values)
    rank = (len(values) - 1) * percent / 100
    low = ordered[math.floor(rank)]
    high = ordered[math.ceil(rank)]
    expected = low + (high - low) * (rank - math.floor(rank))
    assert percentiles(values, [percent])[0] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_percentiles_of_nothing():
    assert all(math.isnan(value) for value in percentiles([]))


def test_meter():
    meter = Meter(warmup=1)
    with meter.loading():
        time.sleep(0.05)
    with meter:
        for _ in range(3):
            with meter.call(audio_seconds=0.1):
                time.sleep(0.02)
        with pytest.raises(ZeroDivisionError), meter.call(audio_seconds=5):
            raise ZeroDivisionError
    speed = meter.speed()
    assert speed.audio_seconds == pytest.approx(0.2)  # warm-up and the failed call left out
    assert 0.04 <= speed.seconds < 0.2 and speed.load_seconds >= 0.05
    assert len(speed.load_average) == 2 and speed.energy is not None
    assert speed.peak_memory_bytes > 10_000_000


def test_peak_memory_sees_this_process_and_living_children():
    before = peak_memory()
    ballast = b"x" * (before + 100_000_000)  # more than any child before this test can have had
    own = peak_memory()
    assert len(ballast) <= own <= before + len(ballast) + 100_000_000
    del ballast
    assert peak_memory() == pytest.approx(own, abs=20_000_000)
    code = "x = b'x' * 300_000_000; print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        child.stdout.readline()
        assert own + 280_000_000 <= peak_memory() <= own + 420_000_000
        child.communicate(b"\n")
    assert peak_memory() <= own + 100_000_000  # no sum with what is gone


def test_peak_memory_remembers_an_ended_child():
    code = (
        "import subprocess, sys\nfrom speechadapt_eval.speed.timing import peak_memory\n"
        "subprocess.run([sys.executable, '-c', \"x = b'x' * 400_000_000\"])\n"
        "print(peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 400_000_000 <= int(done.stdout) <= 500_000_000


def rapl(folder, **domains):
    for name, (now, wraps_at) in domains.items():
        domain = folder / name.replace("_", ":")
        domain.mkdir(exist_ok=True)
        (domain / "energy_uj").write_text(f"{now}\n")
        (domain / "max_energy_range_uj").write_text(f"{wraps_at}\n")


def test_energy_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    limits = 1000_000_000
    rapl(tmp_path, **{"intel-rapl_0": (5_000_000, limits), "intel-rapl_1": (900_000_000, limits)})
    rapl(tmp_path, **{"intel-rapl_0_0": (0, limits)})  # the cores, which package 0 includes
    with EnergyMeter(tmp_path) as meter:
        rapl(tmp_path, **{"intel-rapl_0": (7_500_000, limits), "intel-rapl_1": (1000, limits)})
        rapl(tmp_path, **{"intel-rapl_0_0": (1_000_000, limits)})
    assert meter.energy.cpu == pytest.approx(2.5 + 100.001)
    assert meter.energy.gpu is None and "nvidia-smi" in meter.energy.reason


def test_energy_that_cannot_be_read_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with EnergyMeter(tmp_path / "none") as meter:
        pass
    assert (meter.energy.cpu, meter.energy.gpu) == (None, None)
    assert "no readable CPU counter" in meter.energy.reason


def test_energy_of_gpus(tmp_path, monkeypatch):
    """Two GPUs of 100 and 300 W; the last line is cut as the sampler ends."""
    sampler = tmp_path / "nvidia-smi"
    sampler.write_text(
        '#!/bin/sh\nif [ "$1" = -L ]; then echo "GPU 0: a"; echo "GPU 1: b"; exit; fi\n'
        'printf "100.0\\n300.0\\n[N/A]\\n100.0\\n300.0\\n9"\nexec sleep 5\n'
    )
    sampler.chmod(sampler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    start = time.perf_counter()
    with EnergyMeter(tmp_path / "none") as meter:
        time.sleep(0.3)
    seconds = time.perf_counter() - start
    assert 400 * 0.3 <= meter.energy.gpu <= 400 * seconds
    assert meter.energy.reason.startswith("no readable CPU counter")


def test_run_record_names_no_user_and_no_host(monkeypatch):
    home = str(Path.home())
    command = ["run", "--system", f"x:{home}/model", "http://me:secret@somewhere/v1"]
    record = run_record(command, {"bootstrap": 7}, normaliser="unicode")
    assert record["command"] == ["run", "--system", "x:~/model", "http://somewhere/v1"]
    text = json.dumps(record)
    for name in (socket.gethostname(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(name)}\b", text)
    assert record["seeds"] == {"bootstrap": 7} and record["normaliser"] == "unicode"
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["numpy"] == np.__version__
    machine = record["machine"]
    assert machine["cpu"] and machine["cores"] >= 1 and machine["memory"] > 1e8
    assert len(machine["load_average"]) == 3 and isinstance(machine["device"], list)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_run_record_knows_its_own_commit_only(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    copy = tmp_path / "record.py"
    copy.write_text("x = 1\n")
    monkeypatch.setattr(record_module, "__file__", str(copy))

    def found():
        record = run_record([], {})
        return record["commit"], record["dirty"]

    assert found() == (None, None)
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody's repository")
    assert found() == (None, None)  # in a repository, but not tracked by it
    git("add", "record.py")
    git("commit", "-q", "-m", "ours")
    assert found() == (git("rev-parse", "HEAD"), False)
    copy.write_text("x = 2\n")
    assert found() == (git("rev-parse", "HEAD"), True)
