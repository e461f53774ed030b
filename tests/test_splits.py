"""Splits on lopsided data whose cut is known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate import splits
from palate.domain import Interactions
from palate.splits import by_time, k_fold


def interactions(times: list[int]) -> Interactions:
    n = len(times)
    ones = np.ones(n, np.float32)
    return Interactions(np.arange(n), np.zeros(n, np.int64), ones, ones, np.array(times, np.int64))


def test_by_time_gives_the_newest_share() -> None:
    train, test = by_time(interactions([50, 10, 40, 20, 30]), 0.4)
    assert train.time.tolist() == [10, 20, 30]
    assert test.time.tolist() == [50, 40]
    assert test.user.tolist() == [0, 2]


def test_by_time_puts_ties_at_the_cut_into_the_test() -> None:
    train, test = by_time(interactions([1, 2, 2, 2, 3]), 0.2 + 0.2)
    assert train.time.tolist() == [1]
    assert test.time.tolist() == [2, 2, 2, 3]


def test_by_time_of_no_share_or_of_nothing_tests_nothing() -> None:
    train, test = by_time(interactions([1, 2]), 0)
    assert (len(train), len(test)) == (2, 0)
    assert [len(part) for part in by_time(interactions([]), 0.5)] == [0, 0]


def test_folds_are_of_even_size_and_follow_the_seed() -> None:
    folds = k_fold(11, 3, seed=1)
    assert sorted(np.bincount(folds).tolist()) == [3, 4, 4]
    assert folds.tolist() == k_fold(11, 3, seed=1).tolist() != k_fold(11, 3, seed=2).tolist()


def keys(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def test_the_newest_of_each_user_by_their_own_clock() -> None:
    user, time = keys(1, 2, 1, 2, 1, 1, 3), keys(40, 7, 10, 9, 20, 30, 5)
    assert splits.newest_of_each(user, time, 0.5).tolist() == [True, False, False, True, False, True, False]


def test_ties_at_a_users_cut_are_all_asked_for() -> None:
    assert splits.newest_of_each(keys(1, 1, 1, 1), keys(5, 9, 9, 9), 0.25).tolist() == [False, True, True, True]


def test_the_last_of_each_user_who_has_more_than_one() -> None:
    user, time = keys(1, 2, 1, 3, 3), keys(9, 1, 4, 6, 6)
    assert splits.last_of_each(user, time).tolist() == [True, False, False, False, True]
    assert splits.ties_of_last(user, time) == 1


def test_a_share_by_chance_is_exact() -> None:
    found = splits.at_random(11, 0.3, np.random.default_rng(0))
    assert found.sum() == 3
    assert found.tolist() != splits.at_random(11, 0.3, np.random.default_rng(1)).tolist()


def test_a_share_of_each_user_leaves_each_something() -> None:
    user = np.repeat(keys(1, 2, 3), [10, 2, 1])
    found = splits.share_of_each(user, 0.2, np.random.default_rng(0))
    assert np.bincount(user[found], minlength=4).tolist() == [0, 2, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30), st.floats(0, 1))
def test_nothing_learned_is_as_late_as_what_is_asked(rows: list[tuple[int, int]], share: float) -> None:
    user, time = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    for late, of in (
        (splits.newest(time, share), np.zeros(len(rows), np.int64)),
        (splits.newest_of_each(user, time, share), user),
    ):
        for one in np.unique(of):
            own = of == one
            if (own & late).any() and (own & ~late).any():
                assert time[own & ~late].max() < time[own & late].min()
        assert late.sum() >= round(len(rows) * share) - len(rows) * (of is user)


@given(st.lists(st.integers(0, 4), max_size=30), st.floats(0, 1), st.integers(0, 9))
def test_shares_by_chance_follow_their_seed_alone(users: list[int], share: float, seed: int) -> None:
    user = np.array(users, np.int64)
    first, again = (splits.share_of_each(user, share, np.random.default_rng(seed)) for _ in range(2))
    assert first.tolist() == again.tolist()
    counts, asked = np.bincount(user, minlength=5), np.bincount(user[first], minlength=5)
    assert ((counts < 2) | ((asked >= 1) & (asked < counts))).all()
