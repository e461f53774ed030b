from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.usual import Taken, machine_like, missed, usual_range

FOUR_WEEKS = 28


def counts(*values: float) -> list[Taken | None]:
    return [Taken(value) for value in values]


def test_a_count_may_move_by_chance_and_a_tenth() -> None:
    usual = usual_range(counts(*[100] * FOUR_WEEKS), Taken(0), deviations=5)
    reach = 5 * (100 + 1 + 100) ** 0.5  # of Poisson, of one more, of a tenth
    assert (usual.low, usual.high) == pytest.approx((100 - reach, 100 + reach))


def test_the_days_own_spread_widens_the_range() -> None:
    usual = usual_range(counts(*[80, 120, 100, 60, 140, 90, 110] * 4), Taken(0), deviations=1)
    assert usual.high == pytest.approx(100 + ((1.4826 * 20) ** 2 + 101 + 100) ** 0.5)


def test_a_share_of_few_things_may_lie_anywhere() -> None:
    past: list[Taken | None] = [Taken(30, 1000)] * FOUR_WEEKS
    assert usual_range(past, Taken(0, 2), deviations=5).holds(1.0)
    assert not usual_range(past, Taken(0, 1000), deviations=4).holds(0.0)
    assert usual_range(past, Taken(0, 1000), deviations=4).holds(0.04)


def test_a_quiet_sunday_is_usual_on_a_sunday_alone() -> None:
    week = [1000, 1000, 1000, 1000, 1000, 100, 100]  # of Monday to Sunday
    on_sunday = counts(*(week * 4)[6:], *week[:6])
    on_monday = counts(*week * 4)
    assert usual_range(on_sunday, Taken(0), deviations=3).holds(100)
    assert not usual_range(on_monday, Taken(0), deviations=3).holds(100)


def test_days_without_a_figure_say_nothing() -> None:
    holes = [None, *counts(*[50] * 20), None, None]
    assert usual_range(holes, Taken(50), 5) == usual_range(counts(*[50] * 20), Taken(50), 5)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=60), st.floats(1, 10))
def test_the_median_day_is_always_usual(values: list[int], deviations: float) -> None:
    usual = usual_range(counts(*values), Taken(0), deviations)
    assert usual.low <= np.median(values) <= usual.high


def test_what_a_source_missed_goes_by_the_days_on_which_it_gave() -> None:
    assert missed([0, 0, 4, 2, 0, 0, 0]) == 3 * 3
    assert missed([0, 0, 0]) == 0
    assert missed([9, 0, 1]) == 0


def test_a_timer_a_sleepless_and_a_racing_account_are_machines() -> None:
    rng = np.random.default_rng(1)
    by_hand = np.sort(rng.exponential(20_000, 300).cumsum()).astype(np.int64) + 8 * 3_600_000
    assert machine_like(by_hand) is None
    assert "alike" in str(machine_like(np.arange(300) * 10_000 + rng.integers(-500, 500, 300)))
    assert "every hour" in str(machine_like(np.sort(rng.integers(0, 86_400_000, 2000))))
    assert "0.3 seconds" in str(machine_like(np.arange(300) * 100))
    assert machine_like(np.zeros(0, np.int64)) is None
