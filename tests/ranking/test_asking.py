"""What to ask a new person about."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from palate.models import fold_in
from palate.ranking import asking
from palate.ranking.taste import Features, Taste, TasteParams, design

NOBODY = Taste(loss="squared", base=0.5, vector=np.zeros(2, np.float32))
PARAMS = TasteParams(l2_vector=1, l2_bias=1)


def items(vectors: ArrayLike) -> Features:
    n = len(np.asarray(vectors))
    return Features(
        vectors=np.array(vectors, np.float32),
        bias=np.zeros(n, np.float32),
        source=np.full(n, -1, np.int32),
        label_offsets=np.zeros(n + 1, np.int64),
        labels=np.zeros(0, np.int32),
    )


def order(asked: Features, population: Features, count: int) -> list[int]:
    found: list[int] = asking.order(NOBODY, asked, population, 1.0, PARAMS, count).tolist()
    return found


def test_the_first_question_is_about_what_most_items_are_like() -> None:
    population = items(np.repeat([[1, 0], [0, 1]], [9, 1], axis=0))
    assert order(items(np.array([[0, 1], [1, 0], [0.1, 0]])), population, 1) == [1]


def test_the_same_is_not_asked_twice_while_something_else_is_unknown() -> None:
    population = items(np.repeat([[2, 0], [0, 2]], [6, 4], axis=0))
    assert order(items([[2, 0], [2, 0], [0, 2]]), population, 3) == [0, 2, 1]


def test_each_step_leaves_the_least_variance_that_one_more_question_can() -> None:
    rng = np.random.default_rng(4)
    asked, population = items(rng.normal(size=(7, 2))), items(rng.normal(size=(40, 2)))
    chosen = order(asked, population, 4)
    for step in range(1, 5):
        least = min(
            (variance_after(asked, population, [*chosen[: step - 1], other]), other)
            for other in range(7)
            if other not in chosen[: step - 1]
        )
        assert least[1] == chosen[step - 1]


def test_no_items_and_more_questions_than_items() -> None:
    assert order(items([[1, 0]]), items([[1, 0]]), 5) == [0]
    empty = Features(
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
    )
    assert order(empty, empty, 3) == []


def variance_after(asked: Features, population: Features, chosen: list[int]) -> float:
    """Sum over the population of the variance of its scores after these answers, computed from the definition."""
    x, l2 = design(NOBODY, asked, asked, 1.0, PARAMS)
    told, _ = design(NOBODY, population, asked, 1.0, PARAMS)
    covariance = np.linalg.inv(np.diag(l2) + x[chosen].T @ x[chosen])
    return float(np.trace(told @ covariance @ told.T))


def test_the_variance_is_that_of_the_ridge_that_serving_solves() -> None:
    """The covariance says how a fold-in's result would move with its labels, under unit noise."""
    x, l2 = design(NOBODY, items([[1, 0], [0, 2]]), items([[1, 0]]), 1.0, PARAMS)
    moved = [fold_in.solve(x, np.eye(2)[row], np.zeros(2), l2, "squared") for row in range(2)]
    covariance = np.linalg.inv(np.diag(l2) + x.T @ x)
    np.testing.assert_allclose(np.column_stack(moved), covariance @ x.T, atol=1e-5)
