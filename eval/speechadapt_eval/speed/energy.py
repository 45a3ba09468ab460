"""Energy over a stretch of time, from the counters that the machine offers.

Both counters see the whole machine: other work on it is in the figure too.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType

RAPL = Path("/sys/class/powercap")
_SAMPLE = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-lms", "200")


@dataclass(frozen=True)
class Energy:
    """Joules of the whole machine.

    Attributes:
        cpu: Of all CPU packages (RAPL); None where not readable.
        gpu: Of all GPUs (mean of the power that ``nvidia-smi`` samples every 0.2 s, times the
            seconds); None where there is none.
        reason: Why a figure is missing; empty if both are there.
    """

    cpu: float | None
    gpu: float | None
    reason: str = ""


class EnergyMeter:
    """Measure between entering and leaving; ``energy`` holds the result afterwards.

    Args:
        rapl: Where the kernel shows the CPU's energy counters.
    """

    def __init__(self, rapl: Path = RAPL):
        self.energy = Energy(None, None, "not measured yet")
        self._rapl = rapl
        self._sampler: subprocess.Popen[str] | None = None

    def __enter__(self) -> EnergyMeter:
        self._cpu = _counters(self._rapl)
        if shutil.which(_SAMPLE[0]):
            self._sampler = subprocess.Popen(
                _SAMPLE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        self._start = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._start
        gpu = self._gpu(seconds)
        cpu = _used(self._cpu, _counters(self._rapl))
        missing = []
        if cpu is None:
            missing.append(f"no readable CPU counter in {self._rapl}")
        if gpu is None:
            missing.append("nvidia-smi is not there or reports no power")
        self.energy = Energy(cpu, gpu, "; ".join(missing))

    def _gpu(self, seconds: float) -> float | None:
        if self._sampler is None:
            return None
        self._sampler.terminate()
        lines, _ = self._sampler.communicate()
        watts = [float(line) for line in lines.split("\n")[:-1] if _is_number(line)]
        if not watts:
            return None
        devices = len(_devices())
        return devices * sum(watts) / len(watts) * seconds


def _devices() -> list[str]:
    done = subprocess.run(("nvidia-smi", "-L"), capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")] or ["GPU"]


def _counters(rapl: Path) -> dict[Path, int]:
    """Microjoules of each CPU package; sub-domains, which the packages include, are left out."""
    found = {}
    for domain in sorted(rapl.glob("intel-rapl:*")):
        if domain.name.count(":") != 1:
            continue
        try:
            found[domain] = int((domain / "energy_uj").read_text())
        except (OSError, ValueError):  # only root may read it on most systems
            return {}
    return found


def _used(before: dict[Path, int], after: dict[Path, int]) -> float | None:
    """Joules between two readings; a counter that is smaller now has wrapped around once."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for domain, start in before.items():
        used = after[domain] - start
        if used < 0:
            used += int((domain / "max_energy_range_uj").read_text())
        total += used
    return total / 1e6


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
