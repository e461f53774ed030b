from __future__ import annotations

import numpy as np
import pytest

from palate import activity
from palate.activity import HOUR, LIKED, REFUSED, SHOWN, VIEWED, Activity, Counts
from palate.columns import from_rows
from palate.domain import EventColumns
from palate.interactions import BUILT_IN_TYPES

TYPES = ("shown", "viewed", "like", "dislike", "retract", "unheard")


def log(*rows: tuple[int, int, str, int]) -> EventColumns:
    """(user, item, type, hour)"""
    return from_rows([(n, user, item, type, None, hour * HOUR) for n, (user, item, type, hour) in enumerate(rows, 1)])


def nothing() -> Activity:
    return Activity(activity.nothing(), activity.nothing())


def counted(before: Activity, events: EventColumns, hour: int) -> Activity:
    return activity.counted(before, events, BUILT_IN_TYPES, hour * HOUR)


def of_item(found: Activity, key: int, hour: int) -> np.ndarray:
    return np.asarray(found.items.of(np.array([key]), hour * HOUR)[0])


def test_a_count_halves_in_its_half_life_and_the_last_never_does() -> None:
    found = counted(nothing(), log((1, 7, "shown", 0)), 0)
    np.testing.assert_allclose(of_item(found, 7, 0)[SHOWN], [1, 1, 1, 1])
    np.testing.assert_allclose(of_item(found, 7, 24)[SHOWN], [2.0**-24, 0.5, 2 ** (-1 / 7), 1], rtol=1e-5)


def test_types_count_as_what_they_mean() -> None:
    assert activity.kinds(TYPES, BUILT_IN_TYPES).tolist() == [SHOWN, VIEWED, LIKED, REFUSED, -1, -1]
    assert activity.kinds(("retract:like", "retract:unheard"), BUILT_IN_TYPES).tolist() == [LIKED, -1]


def test_what_is_taken_back_is_no_longer_counted() -> None:
    rows = [(1, 7, "like", 0), (2, 7, "like", 40), (2, 7, "retract:like", 40), (3, 7, "dislike", 40)]
    found = counted(counted(nothing(), log(*rows[:2]), 40), log(*rows[2:]), 41)
    np.testing.assert_allclose(
        of_item(found, 7, 41), of_item(counted(nothing(), log(rows[0], rows[3]), 41), 7, 41), atol=1e-6
    )
    of_two = found.users.of(np.array([2]), 41 * HOUR)[0]
    np.testing.assert_allclose(of_two, 0, atol=1e-6)


def test_what_is_taken_back_late_is_never_read_as_less_than_nothing() -> None:
    found = counted(nothing(), log((1, 7, "like", 0), (1, 7, "retract:like", 100)), 100)
    assert of_item(found, 7, 100)[LIKED, 0] < -0.9
    assert of_item(found, 7, 100)[LIKED, 3] == 0
    assert (activity.not_below_zero(found.items).values >= 0).all()


def test_counting_in_parts_is_counting_at_once() -> None:
    rows = [(n % 3, n % 5, TYPES[n % 4], n) for n in range(40)]
    once = counted(nothing(), log(*rows), 50)
    parts = counted(counted(nothing(), log(*rows[:25]), 30), log(*rows[25:]), 50)
    for own, other in ((once.items, parts.items), (once.users, parts.users)):
        np.testing.assert_array_equal(own.keys.keys, other.keys.keys)
        np.testing.assert_allclose(own.values, other.values, rtol=1e-4)


def test_an_event_ahead_of_the_clock_counts_as_one_of_now() -> None:
    found = counted(nothing(), log((1, 7, "like", 100)), 3)
    assert of_item(found, 7, 3)[LIKED].tolist() == [1, 1, 1, 1]


def test_unknown_things_have_no_counts() -> None:
    assert not of_item(counted(nothing(), log((1, 7, "like", 0)), 0), 8, 0).any()


def test_groups_sum_their_items() -> None:
    found = counted(nothing(), log((1, 7, "like", 0), (2, 8, "like", 0), (2, 9, "like", 0)), 0)
    groups = activity.grouped(found.items, np.array([4, 4, -1]))
    assert groups.keys.keys.tolist() == [4]
    assert groups.values[0, LIKED].tolist() == [2, 2, 2, 2]


def test_sums_of_two_moments_meet_at_the_later() -> None:
    first = counted(nothing(), log((1, 7, "like", 0)), 0).items
    second = counted(nothing(), log((1, 7, "like", 24)), 24).items
    both = activity.together(first, second)
    assert both.time == 24 * HOUR
    assert both.values[0, LIKED, 1] == pytest.approx(1.5)


def test_beyond_the_limit_those_stay_of_which_most_was_heard() -> None:
    found = counted(nothing(), log(*((1, 7, "like", 0),) * 3, (1, 8, "like", 0), *((1, 9, "like", 0),) * 2), 0)
    assert activity.limited(found, 2).items.keys.keys.tolist() == [7, 9]


def test_a_snapshot_keeps_the_people_it_has_and_all_items() -> None:
    found = counted(nothing(), log((1, 7, "like", 0), (2, 8, "viewed", 0)), 0)
    arrays = activity.to_arrays(found, np.array([2, 3])) | {"users": np.array([2, 3])}
    again = activity.from_arrays(arrays, found.time)
    assert again is not None
    assert again.items.keys.keys.tolist() == [7, 8]
    assert again.users.of(np.array([1, 2, 3]), 0)[:, VIEWED, 3].tolist() == [0, 1, 0]
    assert activity.from_arrays({}, 0) is None


def test_no_counts_add_up_to_none() -> None:
    none = activity.nothing()
    assert not len(activity.together(none, none))
    assert isinstance(activity.grouped(none, np.zeros(0, np.int64)), Counts)
