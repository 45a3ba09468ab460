"""Several tests at once: Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that the chance of any false alarm stays below the level tested at.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 1979: the smallest of ``n`` is multiplied by ``n``, the next by ``n - 1`` and so on;
    none falls below an earlier one or exceeds 1.

    Args:
        p_values: One for each test; NaN where a test could not be made, which stays NaN and does
            not count.

    Returns:
        The corrected values in the same order.
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        corrected[index] = highest
    return corrected
