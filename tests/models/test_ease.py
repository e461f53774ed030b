"""EASE beside its formula, and on items whose answer is known."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models import ease, neighbours
from palate.models.ease import EaseParams
from palate.models.material import Material, known, material
from palate.vocabulary import vocabulary

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def lopsided(seed: int = 3, users: int = 40, items: int = 9) -> Interactions:
    """Weights 1 to 3 on a third of the cells, some refused; the first items by more people than the last."""
    random = np.random.default_rng(seed)
    user, item = np.nonzero(random.random((users, items)) < np.linspace(0.6, 0.1, items))
    weight = (random.integers(1, 4, len(user)) * np.where(random.random(len(user)) < 0.1, -1, 1)).astype(np.float32)
    return Interactions(user, item + 100, np.full(len(user), np.nan, np.float32), weight, np.zeros(len(user), np.int64))


def dense(sparse: Sparse) -> NDArray[np.float64]:
    result = np.zeros((len(sparse), sparse.width))
    for row in range(len(sparse)):
        columns, values = sparse.row(row)
        result[row, columns] = values
    return result


def by_the_formula(x: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """Steck's equation 8."""
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(x.shape[1]))
    weights = np.eye(x.shape[1]) - inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_the_weights_are_those_of_the_formula() -> None:
    data = lopsided()
    x = dense(neighbours.by_users(material(data, NOW), 1, 100))
    cell = (x**2).sum() / (x != 0).sum()
    found = ease.fit(material(data, NOW), EaseParams(l2=2.5, user_exponent=0))
    np.testing.assert_allclose(dense(found.weights), by_the_formula(x, 2.5 * cell), rtol=1e-4, atol=1e-6)


def test_no_other_weights_have_a_smaller_error() -> None:
    """The closed form is the least squares it claims to be, by a step along every weight but the diagonal."""
    data = lopsided()
    x = dense(neighbours.by_users(material(data, NOW), 1, 100))
    l2 = 2 * (x**2).sum() / (x != 0).sum()
    weights = dense(ease.fit(material(data, NOW), EaseParams(l2=2, user_exponent=0)).weights)
    slope = -2 * x.T @ (x - x @ weights) + 2 * l2 * weights
    np.fill_diagonal(slope, 0)
    assert np.abs(slope).max() < 1e-3


def test_at_one_half_all_users_count_the_same() -> None:
    data = lopsided()
    x = dense(neighbours.by_users(material(data, NOW), 0, 100))
    x /= np.sqrt((x != 0).sum(axis=1, keepdims=True))
    cell = (x**2).sum() / (x != 0).sum()
    found = ease.fit(material(data, NOW), EaseParams(l2=3, power=0))
    np.testing.assert_allclose(dense(found.weights), by_the_formula(x, 3 * cell), rtol=1e-4, atol=1e-6)


def test_only_the_greatest_weights_of_an_item_are_kept() -> None:
    whole = dense(ease.fit(material(lopsided(), NOW), EaseParams(l2=2)).weights)
    cut = dense(ease.fit(material(lopsided(), NOW), EaseParams(l2=2, neighbours=3)).weights)
    assert ((cut != 0).sum(axis=0) == 3).all()
    assert ((cut == whole) | (cut == 0)).all()
    left_out = np.where(cut == 0, np.abs(whole), 0).max(axis=0)
    assert (left_out <= np.where(cut == 0, np.inf, np.abs(cut)).min(axis=0)).all()


def test_items_that_few_know_have_their_popularity_alone() -> None:
    data = lopsided()
    counts = np.bincount(data.item - 100)
    model = ease.fit(material(data, NOW), EaseParams(max_items=4))
    weights = dense(model.weights)
    chosen = np.sort(np.argsort(-counts, kind="stable")[:4])
    others = np.setdiff1d(np.arange(9), chosen)
    assert not weights[others].any()
    assert not weights[:, others].any()
    assert (weights[np.ix_(chosen, chosen)] != 0).sum() == 12
    scores = neighbours.score_all(model, known(data, np.array([0]), vocabulary(data.item)))[0]
    assert np.allclose(scores[others], 1e-3 * model.popularity[others])


def test_items_that_nobody_knows_have_a_row_and_no_weights() -> None:
    data = lopsided()
    wide = Material(data, vocabulary(data.user), vocabulary([1, *range(100, 109), 2**40]), NOW)
    counts = ease.fit(wide, EaseParams()).weights.counts
    assert (counts[0], counts[-1]) == (0, 0)
    assert (counts[1:-1] == 8).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32))
def test_the_inverse_in_blocks_is_the_inverse(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = random.normal(size=(size, size + 3))
    a = (half @ half.T + np.eye(size)).astype(np.float32)
    found = a.copy()
    ease.inverted(found, 3)
    np.testing.assert_allclose(found, np.linalg.inv(a.astype(np.float64)), rtol=1e-3, atol=1e-4)
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize("threads", [1, 3])
def test_pairs_are_counted_exactly(threads: int) -> None:
    users = neighbours.by_users(material(lopsided(users=200), NOW), 1, 100)
    assert np.array_equal(ease.gramian(users, threads), dense(users).T @ dense(users))


def test_one_item_alone_has_no_weights() -> None:
    one = np.ones(1, np.int64)
    data = Interactions(one, one, one.astype(np.float32), one.astype(np.float32), one)
    model = ease.fit(material(data, NOW), EaseParams())
    assert len(model.weights.columns) == 0
    assert matrix.transposed(model.weights).width == 1
