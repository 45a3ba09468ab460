"""Tables line up in terminals whatever the script, and hold all figures of a system."""

import math

import pytest

from speechadapt_eval import EvalError, score
from speechadapt_eval.report.systems import HEADER, SystemRow, render_systems
from speechadapt_eval.report.table import display_width, percent, percent_range, render


def test_plain_and_markdown():
    rows = [["frozen", "81.02"], ["家 e\u0301", "5.00"]]
    assert render(["system", "WER"], rows) == (
        "system    WER\n------  -----\nfrozen  81.02\n家 e\u0301     5.00\n"
    )
    assert render(["a|b", "n"], [["x\ny", "1"]], markdown=True) == (
        "| a\\|b |   n |\n| ---- | --: |\n| x y  |   1 |\n"
    )


def test_all_lines_are_equally_wide():
    text = render(["x", "y"], [["家家家", "1"], ["שָׁלוֹם", "22"], ["हिन्दी", "333"]], markdown=True)
    assert len({display_width(line) for line in text.splitlines()}) == 1


def test_refuses_ragged_rows():
    with pytest.raises(EvalError, match="1 cells, the header 2"):
        render(["a", "b"], [["1"]])
    with pytest.raises(EvalError, match="does not fit"):
        render(["a", "b"], [], align="l")


def test_figures():
    assert percent(0.12345) == "12.35" and percent(0.5, signed=True) == "+50.00"
    assert percent(math.nan) == percent_range(math.nan, 1) == "n/a"
    assert percent_range(-0.1, 0.2, signed=True) == "[-10.00, +20.00]"


def test_systems():
    refs = {f"u{i}": "a b c d" for i in range(10)}
    base = score(refs, dict.fromkeys(refs, "a x"))
    good = score(refs, {k: "a b c d" if i else "a b c" for i, k in enumerate(refs)})
    rows = [
        SystemRow.measured("base", "30 s", base, seconds=2.25),
        SystemRow.measured(
            "adapter", "1 s", good, score(refs, refs, unit="char"), baseline=base,
            trainable=812_032, base_parameters=72_593_920,
        ),
    ]  # fmt: skip
    assert rows[0].cells()[:3] == ["base", "30 s", "75.00"]
    assert rows[0].cells()[4:] == ["–", "–", "–", "–", "–", "2.2"]
    assert rows[1].cells()[4:6] == ["0.00", "-72.50"]
    assert rows[1].cells()[7:] == ["812,032", "1.12", "–"]
    text = render_systems(rows, markdown=True)
    assert all(name in text for name in HEADER)
    assert text.count("does not cover other speakers") == 2  # once for each kind of interval
