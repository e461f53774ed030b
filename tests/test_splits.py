"""Splits on lopsided data whose cut is known."""

from __future__ import annotations

import numpy as np

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
