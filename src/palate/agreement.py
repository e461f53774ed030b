"""How far people who judge the same things agree beyond what chance would give: 1 for always, 0 for no more than by chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def cohen_kappa(confusion: Matrix) -> float | None:
    """Of two judges; entry (i, j) counts the things that one called i and the other j. None where chance alone agrees always.

    Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    total = confusion.sum()
    if total == 0:
        return None
    observed = np.trace(confusion) / total
    expected = confusion.sum(axis=0) @ confusion.sum(axis=1) / total**2
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def coincidences(units: Iterable[Sequence[int]], count: int) -> Matrix:
    """(count, count) how often two judges of one thing gave each pair of values, in both orders.

    `units`: of each thing the values, 0 to count − 1, that its judges gave. A thing of m judges has m in the sum, so that each
    value counts once; of one judge it has nothing to say.
    """
    found = np.zeros((count, count))
    for unit in units:
        if len(unit) > 1:
            given = np.bincount(unit, minlength=count).astype(np.float64)
            found += (np.outer(given, given) - np.diag(given)) / (len(unit) - 1)
    return found


def krippendorff_alpha(coincidences: Matrix, positions: Sequence[float] | None = None) -> float | None:
    """Of any number of judges, not all of whom judged everything. None where nothing was judged twice, or all values are one.

    `positions`: where each value stands on a scale, the square of whose distances counts; None: values are equal or not.
    Krippendorff, "Computing Krippendorff's alpha-reliability", 2011.
    """
    given = coincidences.sum(axis=1)
    total = given.sum()
    places = None if positions is None else np.asarray(positions, np.float64)
    distance = 1 - np.eye(len(given)) if places is None else (places[:, None] - places[None, :]) ** 2
    expected = (np.outer(given, given) * distance).sum()
    if expected == 0:
        return None
    return float(1 - (total - 1) * (coincidences * distance).sum() / expected)
