"""Draw what ``run.py`` wrote: how many times the least possible, or our own, time each system takes.

    python kernels/bench/plot.py bench.csv bench.svg

One panel for each operator, one group of dots for each size. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

Times = dict[str, dict[str, float]]  # microseconds by size and system


def main() -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("picture", type=Path, help="its ending says which kind")
    args = parser.parse_args()
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("plot.py: matplotlib is not installed: pip install matplotlib", file=sys.stderr)
        return 2
    cases, title = read(args.table)
    columns = 3
    rows = -(-len(cases) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(6 * columns, 4 * rows), squeeze=False)
    for panel in panels.flat[len(cases) :]:
        panel.set_axis_off()
    for panel, (name, times) in zip(panels.flat, cases.items(), strict=False):
        systems = sorted({system for by_system in times.values() for system in by_system})
        for system in systems:
            ratios = [
                by_system[system] / ours(by_system) if system in by_system else float("nan")
                for by_system in times.values()
            ]
            panel.plot(range(len(ratios)), ratios, "o", label=system, markersize=4)
        panel.axhline(1, color="black", linewidth=0.5)
        panel.set_xticks(range(len(times)), list(times), rotation=90, fontsize=5)
        panel.set_yscale("log")
        panel.set_title(name)
        panel.legend(fontsize=6)
    panels[0][0].set_ylabel("time / ours")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(args.picture)
    return 0


def read(table: Path) -> tuple[dict[str, Times], str]:
    """Times of each case, and what they were measured on."""
    cases: dict[str, Times] = defaultdict(lambda: defaultdict(dict))
    title = ""
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            title = f"{row['device']}, {row['dtype']}, torch {row['torch']}, {row['commit']}"
            if row["microseconds"]:
                size = f"{row['model'].split(',')[0]} {row['batch']}×{row['frames']}"
                cases[row["case"]][size][row["system"]] = float(row["microseconds"])
    return cases, title


def ours(by_system: dict[str, float]) -> float:
    """Ours, in a graph where there is one."""
    return by_system.get("fused, graph", by_system["fused"])


if __name__ == "__main__":
    sys.exit(main())
