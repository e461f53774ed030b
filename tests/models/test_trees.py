from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import metrics
from palate.errors import SnapshotBroken
from palate.models import calibration, forest, trees
from palate.models.forest import Forest
from palate.models.trees import TreeParams

pytest.importorskip("catboost")
SMALL = TreeParams(trees=15, depth=3)


def lopsided(rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """The label is likely where the second column is high, whatever the first and third say; the third is often unknown."""
    random = np.random.default_rng(3)
    features = random.standard_normal((rows, 3)).astype(np.float32)
    features[random.random(rows) < 0.4, 2] = np.nan
    labels = (random.random(rows) < np.where(features[:, 1] > 0.5, 0.9, 0.1)).astype(np.float32)
    return features, labels


def fitted(seed: int = 1) -> trees.Trees:
    features, labels = lopsided()
    return trees.fit(features, labels, np.ones(len(labels), np.float32), SMALL, seed)


def test_trees_find_the_column_that_tells() -> None:
    features, labels = lopsided()
    model = fitted()
    assert metrics.auc(labels, model.raw(features)) > 0.8
    assert model.importances().argmax() == 1


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    features, _ = lopsided()
    first, second, other = fitted(), fitted(), fitted(seed=2)
    np.testing.assert_array_equal(first.to_bytes(), second.to_bytes())
    assert not np.array_equal(first.raw(features), other.raw(features))


def test_bytes_bring_back_the_model() -> None:
    features, _ = lopsided()
    model = fitted()
    again = trees.of_bytes(model.to_bytes(), 3)
    np.testing.assert_array_equal(again.raw(features), model.raw(features))


def test_bytes_that_are_no_model_of_these_columns_are_refused() -> None:
    with pytest.raises(SnapshotBroken):
        trees.of_bytes(np.arange(50, dtype=np.uint8), 3)
    with pytest.raises(SnapshotBroken, match="columns"):
        trees.of_bytes(fitted().to_bytes(), 4)


def test_calibrated_scores_are_the_shares_of_positives_and_never_fall() -> None:
    random = np.random.default_rng(5)
    scores = random.normal(0, 3, 4000)
    labels = random.random(4000) < 0.3 / (1 + np.exp(-scores))
    found = calibration.fit(scores, labels)
    assert (np.diff(found.probabilities) >= 0).all()
    assert metrics.calibration_error(labels, found(scores)) < 0.02
    assert found([-99.0])[0] < 0.02 < 0.2 < found([99.0])[0] < 1


def test_few_scores_are_all_held_at_their_mean() -> None:
    found = calibration.fit(np.array([0.0, 1.0, 2.0]), [0, 1, 0])
    assert found([0.0, 2.0]).tolist() == pytest.approx([1 / 3, 1 / 3])


def test_a_slope_is_found_where_labels_rise_with_scores_and_none_where_they_fall() -> None:
    random = np.random.default_rng(6)
    scores = random.normal(0, 2, 20_000)
    labels = random.random(20_000) < 1 / (1 + np.exp(2.0 - 0.7 * scores))
    assert calibration.slope(scores, labels) == pytest.approx(0.7, abs=0.05)
    assert calibration.slope(-scores, labels) == 0
    assert calibration.slope(np.array([-5.0, 5.0]), [0, 1]) < 1  # two rows prove little


def test_trees_as_arrays_say_what_they_say() -> None:
    features, _ = lopsided()
    model = fitted()
    asked = forest.from_arrays({f"a_{k}": v for k, v in forest.to_arrays(model.forest()).items()}, "a_", 3)
    np.testing.assert_allclose(forest.raw(asked, features), model.raw(features), atol=1e-9)
    np.testing.assert_allclose(forest.readable(asked, features), model.raw(features), atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(0, 700), st.integers(0, 5), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_a_forest_in_machine_code_says_what_the_readable_one_says(seed: int, rows: int, trees: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    columns = random.integers(0, 4, (trees, depth)).astype(np.int32)
    borders = random.choice([-1, 0, 0.5, np.inf], (trees, depth)).astype(np.float32)
    asked = Forest(columns, borders, random.normal(size=(trees, 2**depth)), 0.25)
    features = random.choice([-1, 0, 0.5, 1, np.nan], (rows, 4)).astype(np.float32)
    np.testing.assert_allclose(forest.raw(asked, features), forest.readable(asked, features), atol=1e-12)


def test_a_forest_that_doesnt_fit_together_is_refused() -> None:
    arrays = forest.to_arrays(fitted().forest())
    with pytest.raises(SnapshotBroken):
        forest.from_arrays(arrays, "", 1)
    with pytest.raises(SnapshotBroken):
        forest.from_arrays(arrays | {"leaves": arrays["leaves"][:, :3]}, "", 3)
