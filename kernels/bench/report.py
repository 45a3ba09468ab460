"""What ``run.py`` wrote, as a table in Markdown and as a picture.

    python kernels/bench/report.py bench.csv --picture bench.svg >bench.md

Times of all systems as multiples of ours; on a CPU as one table. The picture, a panel for each
operator, needs matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

Times = dict[str, dict[str, float]]  # microseconds by size and system
Floors = dict[tuple[str, str], float]  # microseconds by case and size


def main() -> int:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--picture", type=Path, help="to draw; its ending says which kind")
    args = parser.parse_args()
    try:
        cases, floors, title = read(args.table)
    except OSError as error:
        print(f"report.py: {args.table}: {error.strerror}", file=sys.stderr)
        return 2
    on_cpu = title.startswith("CPU")
    print("\n".join(compact(cases, title) if on_cpu else markdown(cases, floors, title)))
    if args.picture is None:
        return 0
    try:
        draw(cases, title, args.picture)
    except ImportError:
        print("report.py: matplotlib is not installed: pip install matplotlib", file=sys.stderr)
        return 2
    return 0


def markdown(cases: dict[str, Times], floors: Floors, title: str) -> Iterator[str]:
    """A table for each case."""
    yield (
        f"{title}. Microseconds of ours, the floor's share of them, and others as their multiples; "
        "`compile` at one size."
    )
    for name, times in cases.items():
        others = list(dict.fromkeys(s for each in times.values() for s in each))
        yield f"\n| {name} | ours | floor | {' | '.join(others)} |"
        yield "|---" * (3 + len(others)) + "|"
        for size, each in times.items():
            mine = ours(each)
            cells = [f"{each[s] / mine:.2f}" if s in each else "" for s in others]
            yield f"| {size} | {mine:.1f} | {floors[name, size] / mine:.0%} | {' | '.join(cells)} |"


def compact(cases: dict[str, Times], title: str) -> Iterator[str]:
    """One table for all cases: of a CPU, which no floor was worked out for."""
    sizes = list(dict.fromkeys(size for times in cases.values() for size in times))
    yield f"{title}. Times of others as multiples of ours.\n"
    yield f"| | | {' | '.join(sizes)} |"
    yield "|---" * (2 + len(sizes)) + "|"
    for name, times in cases.items():
        others = list(dict.fromkeys(s for each in times.values() for s in each))
        for system in others[1:]:
            cells = [
                f"{times[size][system] / ours(times[size]):.2f}"
                if system in times.get(size, {})
                else ""
                for size in sizes
            ]
            yield f"| {name} | {system} | {' | '.join(cells)} |"


def draw(cases: dict[str, Times], title: str, path: Path) -> None:
    """One panel for each case, one colour for each system."""
    from matplotlib.figure import Figure

    systems = list(dict.fromkeys(s for t in cases.values() for each in t.values() for s in each))
    columns = 3
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(6 * columns, 4 * rows))
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(cases) :]:
        panel.set_axis_off()
    for panel, (name, times) in zip(panels.flat, cases.items(), strict=False):
        for index, system in enumerate(systems):
            places = [i for i, each in enumerate(times.values()) if system in each]
            ratios = [each[system] / ours(each) for each in times.values() if system in each]
            panel.plot(places, ratios, "o", label=system, color=f"C{index}", markersize=4)
        panel.axhline(1, color="black", linewidth=0.5)
        panel.set_xticks(range(len(times)), list(times), rotation=90, fontsize=5)
        panel.set_yscale("log")
        panel.set_ylabel("time / ours")
        panel.set_title(name)
    panels[0][0].legend(fontsize=6)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)


def read(table: Path) -> tuple[dict[str, Times], Floors, str]:
    """Microseconds of each case, floors by case and size, and what they were measured on."""
    cases: dict[str, Times] = defaultdict(lambda: defaultdict(dict))
    floors: Floors = {}
    title = ""
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            title = f"{row['device']}, {row['versions']}, {row['path']}, commit {row['commit']}"
            if row["microseconds"]:
                size = f"{row['model'].split(',')[0]} {row['batch']} × {row['frames']}"
                cases[row["case"]][size][row["system"]] = float(row["microseconds"])
                floors[row["case"], size] = float(row["floor"])
    return cases, floors, title


def ours(by_system: dict[str, float]) -> float:
    """Ours, in a graph where there is one."""
    return by_system.get("fused, graph", by_system["fused"])


if __name__ == "__main__":
    sys.exit(main())
