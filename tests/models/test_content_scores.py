"""Scores of items that a model has learned nothing of, by their content."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from palate import matrix
from palate.models import als_content, content, content_scores, implicit_als
from palate.models.content import ContentParams, Contents, nothing_known
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Known
from palate.vocabulary import Vocabulary

PARAMS = ContentParams(l2_text=2.0, l2_source=2.0, l2_label=2.0, l2_others=2.0, l2_scores=2.0, trust=5.0)


def contents(n: int, length: int = 6) -> Contents:
    rng = np.random.default_rng(n)
    counts = rng.integers(0, 3, n)
    return Contents(
        rng.normal(size=(n, length)).astype(np.float16),
        rng.integers(-1, 4, n),
        np.cumsum([0, *counts]).astype(np.int64),
        rng.integers(0, 5, counts.sum()),
        {"author": rng.integers(-1, 3, n)},
    )


def examples(n: int, unknown: int) -> NDArray[np.int64]:
    counts = np.random.default_rng(1).integers(1, 40, n)
    counts[-unknown:] = 0
    return counts


def test_it_is_the_ridge_regression_of_the_scores_that_are_known() -> None:
    known, counts, scores = contents(80), examples(80, 20), np.random.default_rng(2).normal(size=(80, 3))
    found = content_scores.fit(known, counts, PARAMS)
    assert found is not None
    told = content_scores.scored(
        content_scores.told(found, scores.astype(np.float32)), content_scores.values(found, known)
    )
    readable = content.fit(known, scores.astype(np.float32), counts, PARAMS)
    np.testing.assert_allclose(told[-20:], content.predicted(readable, known)[-20:], atol=0.02)


def test_few_directions_are_those_in_which_items_differ() -> None:
    text = np.random.default_rng(3).normal(size=(200, 8)) * [9, 7, *[0.1] * 6]
    nothing = nothing_known(200, 8)
    known = Contents(text.astype(np.float16), nothing.source, nothing.label_offsets, nothing.labels)
    found = content_scores.fit(known, np.full(200, 99), ContentParams(directions=2))
    assert found is not None
    scores = (text @ [1, -2, *[0] * 6]).astype(np.float32)
    told = content_scores.scored(content_scores.told(found, scores), content_scores.values(found, known))
    np.testing.assert_allclose(told, scores, atol=0.5)


def test_what_scores_are_made_of_makes_those_of_new_items_too() -> None:
    known, counts = contents(50), examples(50, 10)
    found = content_scores.fit(known, counts, PARAMS)
    assert found is not None
    parts = np.random.default_rng(4).normal(size=(50, 7)).astype(np.float32)
    values = content_scores.values(found, known)
    each = content_scores.scored(content_scores.told(found, parts), values)
    whole = content_scores.scored(content_scores.told(found, parts.sum(axis=1)), values)
    np.testing.assert_allclose(each.sum(axis=1), whole, atol=1e-4)


def test_als_mixes_contributions_as_if_they_were_multiplied() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(30, 5)).astype(np.float32)
    items, nobody = Vocabulary(np.arange(30)), Vocabulary(np.zeros(1, np.int64))
    one, counts = np.ones(1, np.int32), np.ones(30, np.int32)
    model = ImplicitALS(
        ImplicitALSParams(factors=5, unobserved_weight=0.3),
        nobody,
        vectors[:1],
        one,
        items,
        vectors,
        counts,
        vectors.T @ vectors,
    )
    met, weights = np.array([3, 8, 20]), np.array([1, -1, 2], np.float32)
    rows, mixes = np.array([0, 3, 11, 29]), rng.normal(size=(2, 4)).astype(np.float32)
    told = matrix.sparse(0 * met, met, weights, (1, 30))
    person = Known(np.zeros(1, np.int64), told, told)
    multiplied = mixes @ implicit_als.contributions(model, met, weights, rows)
    np.testing.assert_allclose(als_content.mixed_contributions(model, person, rows, mixes), multiplied, atol=1e-5)


def test_an_item_of_which_nothing_is_known_has_the_mean_score() -> None:
    found = content_scores.fit(contents(50), np.full(50, 10), PARAMS)
    assert found is not None
    scores = np.random.default_rng(5).normal(size=50).astype(np.float32)
    values = content_scores.values(found, nothing_known(1, 6))
    assert content_scores.scored(content_scores.told(found, scores), values)[0] == pytest.approx(
        scores.mean(), abs=1e-5
    )


def test_where_nobody_took_to_anything_nothing_is_said() -> None:
    assert content_scores.fit(contents(50), np.zeros(50, int), PARAMS) is None


def test_where_nothing_is_known_of_content_all_have_the_mean() -> None:
    found = content_scores.fit(nothing_known(9), np.full(9, 3), PARAMS)
    assert found is not None
    scores = np.arange(9, dtype=np.float32)
    values = content_scores.values(found, nothing_known(2))
    assert content_scores.scored(content_scores.told(found, scores), values).tolist() == pytest.approx([4, 4])


def test_a_snapshot_gives_it_back() -> None:
    known = contents(60)
    found = content_scores.fit(known, examples(60, 5), PARAMS)
    assert found is not None
    arrays = content_scores.to_arrays(found, known)
    back = content_scores.from_arrays(arrays)
    assert back is not None
    np.testing.assert_array_equal(back.rows, found.rows)
    np.testing.assert_allclose(
        content_scores.values(back, known).astype(float), arrays["scores_values"].astype(float), atol=0.02
    )
    assert content_scores.from_arrays({}) is None
