"""Agreement beyond chance, against the examples of those who defined it."""

from __future__ import annotations

import numpy as np
import pytest

from palate.agreement import cohen_kappa, coincidences, krippendorff_alpha

KRIPPENDORFF = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def units() -> list[list[int]]:
    """Twelve things of four judges, the third example of the paper of 2011."""
    rows = [line.split() for line in KRIPPENDORFF.strip().splitlines()]
    return [[int(value) - 1 for value in unit if value != "."] for unit in zip(*rows, strict=True)]


def test_alpha_of_the_papers_example() -> None:
    table = coincidences(units(), 5)
    assert table.sum() == 40
    assert table[0, 1] == pytest.approx(4 / 3)
    assert krippendorff_alpha(table) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(table, (1, 2, 3, 4, 5)) == pytest.approx(0.849, abs=5e-4)


def test_kappa_takes_off_what_chance_gives() -> None:
    assert cohen_kappa(np.array([[20.0, 5.0], [10.0, 15.0]])) == pytest.approx(0.4)  # 0.7 seen, 0.5 by chance
    assert cohen_kappa(np.array([[45.0, 15.0], [25.0, 15.0]])) == pytest.approx(0.1304, abs=5e-5)
    assert cohen_kappa(np.array([[3.0, 0.0], [0.0, 4.0]])) == 1


def test_worse_than_chance_is_below_zero() -> None:
    assert krippendorff_alpha(coincidences([[0, 1], [1, 0], [0, 1]], 2)) == pytest.approx(-2 / 3)
    assert cohen_kappa(np.array([[0.0, 2.0], [2.0, 0.0]])) == -1


def test_what_nobody_judged_twice_and_what_never_differs_has_no_agreement() -> None:
    assert krippendorff_alpha(coincidences([[0], [1], []], 2)) is None
    assert krippendorff_alpha(coincidences([[1, 1], [1, 1]], 2)) is None
    assert cohen_kappa(np.zeros((2, 2))) is None
    assert cohen_kappa(np.array([[5.0, 0.0], [0.0, 0.0]])) is None
