from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import matrix
from palate.matrix import Sparse
from palate.models import top_lists
from palate.models.top_lists import Tops


def nothing(people: int, items: int) -> Sparse:
    return Sparse(np.zeros(people + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), items)


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers: their products are exact, and many are equal."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def drawn(rng: np.random.Generator, people: int, items: int, count: int) -> Sparse:
    cells = np.unique(rng.integers(0, people * items, count))
    return matrix.sparse(cells // items, cells % items, np.ones(len(cells), np.float32), (people, items))


def same(found: Tops, expected: Tops) -> bool:
    return bool((found.rows == expected.rows).all() and (found.scores == expected.scores).all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 60), st.integers(1, 20))
def test_the_search_gives_what_its_readable_twin_gives(seed: int, people: int, items: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    users, vectors, seen = whole(rng, people, 3), whole(rng, items, 3), drawn(rng, people, items, people * items // 2)
    expected = top_lists.best_readable(users, vectors, limit, seen)
    assert same(top_lists.best(users, vectors, limit, seen, 1), expected)
    assert same(top_lists.best_of_scores(users @ vectors.T, limit, seen), expected)


def test_over_many_blocks_and_with_any_number_of_threads_it_is_the_same() -> None:
    rng = np.random.default_rng(1)
    people, items = whole(rng, 2 * top_lists.PEOPLE + 7, 4), whole(rng, 3 * top_lists.ITEMS + 5, 4)
    items[::3] *= 9  # lengths differ, so that most people are done before the end
    seen = drawn(rng, len(people), len(items), 50_000)
    expected = top_lists.best_readable(people, items, 11, seen)
    assert same(top_lists.best(people, items, 11, seen, 1), expected)
    assert same(top_lists.best(people, items, 11, seen, 3), expected)


def test_of_equal_products_the_lower_row_is_better() -> None:
    items = np.array([[1], [2], [2], [1], [2]], np.float32)
    found = top_lists.best(np.ones((1, 1), np.float32), items, 4, nothing(1, 5))
    assert found.rows.tolist() == [[1, 2, 4, 0]]


def test_what_was_seen_and_what_is_no_number_is_left_out_and_lists_may_be_short() -> None:
    items = np.array([[5], [np.nan], [3], [4]], np.float32)
    seen = matrix.sparse(np.array([0]), np.array([0]), np.ones(1, np.float32), (2, 4))
    found = top_lists.best(np.array([[1], [np.inf]], np.float32), items, 3, seen)
    assert found.rows.tolist() == [[3, 2, -1], [-1, -1, -1]]
    assert found.scores[0].tolist() == [4, 3, -np.inf]


@pytest.mark.parametrize("people", [0, 2])
def test_without_items_or_people_there_is_nothing(people: int) -> None:
    found = top_lists.best(np.ones((people, 2), np.float32), np.zeros((0, 2), np.float32), 3, nothing(people, 0))
    assert found.rows.shape == (people, 3)
    assert (found.rows == -1).all()
