"""Singular vectors beside those of NumPy, and tastes whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models import neighbours, svd
from palate.models.material import known, material
from palate.models.svd import SvdParams
from palate.vocabulary import vocabulary

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def lopsided(seed: int = 3, users: int = 60, items: int = 24) -> Interactions:
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


def cells_of(seed: int) -> Sparse:
    data = lopsided(seed)
    return neighbours.by_users(material(data, NOW), 1, 100)


@pytest.mark.parametrize("count", [1, 4])
def test_the_directions_are_those_of_the_greatest_singular_values(count: int) -> None:
    cells = cells_of(3)
    expected = np.linalg.svd(dense(cells))[2][:count].T
    found = svd.greatest(cells, count, 30, 0, 1)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)
    np.testing.assert_allclose(found.T @ found, np.eye(count), atol=1e-5)


def test_scores_are_the_projection_of_the_divided_matrix() -> None:
    data = lopsided()
    learned = material(data, NOW)
    params = SvdParams(factors=3, turns=30, user_exponent=0.4, item_exponent=0.7, prior=0)
    x = dense(neighbours.by_users(learned, 1, 100))
    scale = np.abs(x).sum(axis=0) ** 0.7
    divided = x / scale / ((x != 0).sum(axis=1) ** 0.4)[:, np.newaxis]
    vectors = np.linalg.svd(divided)[2][:3].T
    scores = svd.score_all(svd.fit(learned, params, 0), known(data, learned.users.keys, learned.items))
    np.testing.assert_allclose(scores, x / scale @ vectors @ vectors.T * scale, atol=1e-3)


def test_a_direction_stands_for_eight_items_at_least() -> None:
    learned = material(lopsided(), NOW)
    assert svd.fit(learned, SvdParams(factors=100), 0).vectors.shape == (24, 3)
    assert svd.fit(learned, SvdParams(factors=2), 0).vectors.shape == (24, 2)


def test_nothing_is_kept_of_directions_in_which_nothing_differs() -> None:
    """Two camps that share nothing have two directions, however many are wanted."""
    user, item = np.divmod(np.arange(120), 12)
    data = lopsided()
    ones = np.ones(120, np.float32)
    camps = replace(data, user=user, item=12 * (user % 2) + item, label=ones, weight=ones, time=np.zeros(120, np.int64))
    learned = material(camps, NOW)
    model = svd.fit(learned, SvdParams(factors=8, prior=0), 0)
    assert model.vectors.shape == (24, 2)
    scores = svd.score_all(model, known(camps, np.array([0]), learned.items))[0]
    assert (scores[:12] > 0.05).all()
    np.testing.assert_allclose(scores[12:], 0, atol=1e-5)


def test_threads_change_nothing_and_squares_are_those_of_the_matrix() -> None:
    cells = cells_of(5)
    vectors = np.random.default_rng(1).standard_normal((cells.width, 7)).astype(np.float32)
    found = [svd.squared(cells, vectors, threads) for threads in (1, 2, 9)]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    np.testing.assert_allclose(found[0], dense(cells).T @ dense(cells) @ vectors, rtol=1e-4, atol=1e-4)
    plain = np.zeros_like(vectors)
    svd._squared(cells.offsets, cells.columns, cells.values, vectors, plain)
    np.testing.assert_allclose(plain, found[0], rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0]))
def test_what_each_item_adds_sums_to_the_score(seed: int, power: float) -> None:
    data = lopsided(seed, users=30)
    learned = material(data, NOW)
    model = svd.fit(learned, SvdParams(factors=3, power=power, prior=0), 0)
    person = known(data, np.array([data.user[0]]), learned.items)
    wanted = np.arange(len(learned.items))
    parts = svd.contributions(model, person, wanted)
    np.testing.assert_allclose(parts.sum(axis=1), svd.score_all(model, person)[0], rtol=1e-4, atol=1e-5)


def test_nobody_taking_to_anything_leaves_popularity_alone() -> None:
    data = lopsided()
    nothing = replace(data, weight=np.zeros_like(data.weight))
    items = vocabulary(data.item)
    learned = replace(material(nothing, NOW), items=items)
    model = svd.fit(learned, SvdParams(), 0)
    person = known(data, np.array([0, 999]), items)
    assert svd.score_all(model, person).tolist() == np.zeros((2, len(items))).tolist()
