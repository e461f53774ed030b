"""What is known of people, and how it fades."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import Interactions
from palate.models.material import Known, faded, known
from palate.vocabulary import vocabulary


def told(cells: list[tuple[int, int, float, int]]) -> Interactions:
    """User, item, weight, time, sorted by user and item."""
    user, item, weight, time = np.array(sorted(cells), float).reshape(-1, 4).T
    label = np.full(len(user), np.nan, np.float32)
    return Interactions(
        user.astype(np.int64), item.astype(np.int64), label, weight.astype(np.float32), time.astype(np.int64)
    )


def newer(people: Known) -> list[float]:
    assert people.newer is not None
    return [float(value) for value in people.newer.values]


def test_items_are_counted_from_a_persons_newest_and_equal_times_are_of_one_age() -> None:
    data = told([(1, 10, 1, 500), (1, 11, 1, 900), (1, 12, 2, 500), (1, 13, -1, 100), (2, 10, 1, 7)])
    people = known(data, np.array([2, 1]), vocabulary(data.item))
    assert newer(people) == [0, 1, 0, 1, 3]
    assert newer(people.of(np.array([1]))) == [1, 0, 1, 3]


def test_what_was_only_seen_or_has_no_weight_makes_nothing_older() -> None:
    data = told([(1, 10, 1, 1), (1, 11, 0, 2), (1, 12, np.nan, 3), (1, 13, 1, 4)])
    people = known(data, np.array([1]), vocabulary(data.item))
    assert people.weights.columns.tolist() == [0, 1, 3]
    assert newer(people) == [1, 0, 0]


def test_half_is_left_for_every_so_many_newer_items() -> None:
    data = told([(1, item, 8, item) for item in range(5)])
    people = known(data, np.array([1]), vocabulary(data.item))
    np.testing.assert_allclose(faded(people, 2).values, [2, 8 / 2**1.5, 4, 8 / 2**0.5, 8], rtol=1e-6)
    assert faded(people, None) is people.weights
    timeless = known(told([(1, item, 8, 0) for item in range(5)]), np.array([1]), vocabulary(data.item))
    assert faded(timeless, 2).values.tolist() == [8] * 5


@given(
    st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 5)), st.tuples(st.integers(-1, 2), st.integers(0, 4)))
)
def test_every_cell_has_the_number_of_newer_ones_of_its_person(cells: dict[tuple[int, int], tuple[int, int]]) -> None:
    data = told([(*pair, *value) for pair, value in cells.items()])
    people = known(data, np.arange(4), vocabulary(np.arange(6)))
    expected = [
        sum(1 for (u, _), (w, t) in cells.items() if weight and u == user and w and t > time)
        for (user, _), (weight, time) in sorted(cells.items())
    ]
    assert newer(people) == expected
