from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import SnapshotBroken
from palate.models import additive, text_values
from palate.models.additive import DEPTH, Additive
from palate.models.forest import Forest

NONE = Forest(np.zeros((0, DEPTH), np.int32), np.zeros((0, DEPTH), np.float32), np.zeros((0, 2**DEPTH)), 0.0)


def chance(seed: int, columns: int, trees: int) -> Additive:
    random = np.random.default_rng(seed)
    forest = Forest(
        random.integers(columns, size=(trees, DEPTH)).astype(np.int32),
        random.standard_normal((trees, DEPTH)).astype(np.float32),
        random.standard_normal((trees, 2**DEPTH)),
        0.0,
    )
    bends = np.cumsum(0.1 + random.random((columns, 5)), axis=1).astype(np.float32) - 1
    return Additive(bends, random.standard_normal((columns, 5)).astype(np.float32), forest)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(0, 1100), st.integers(1, 4), st.integers(0, 3), st.integers(0, 6))
def test_machine_code_says_what_can_be_read(seed: int, rows: int, direct: int, others: int, trees: int) -> None:
    model, random = chance(seed, direct + others, trees), np.random.default_rng(seed)
    table = (2 * random.standard_normal((direct, rows))).astype(np.float32)
    looked_up = (2 * random.standard_normal((others, 7))).astype(np.float32)
    places = random.integers(7, size=rows)
    said = additive.said(model, table, looked_up, places)
    expected = additive.readable(model, np.concatenate((table, looked_up[:, places])))
    np.testing.assert_allclose(said, expected, atol=1e-3)


def test_a_column_is_a_line_with_bends() -> None:
    bends = np.array([[0, 1, 2, 3, 5]], np.float32)
    heights = np.array([[1, 4, 2, 2, -3]], np.float32)
    column = np.linspace(-2, 7, 40, dtype=np.float32)
    model = Additive(bends, heights, NONE)
    said = additive.said(model, column[np.newaxis], np.zeros((0, 1), np.float32), np.zeros(40, np.int64))
    np.testing.assert_allclose(said, np.interp(column, bends[0], heights[0]), atol=1e-5)
    np.testing.assert_allclose(additive.lines(model, column[np.newaxis]), said, atol=1e-5)


def test_small_trees_are_made_as_deep_as_others() -> None:
    small = Forest(np.array([[0]], np.int32), np.array([[0.5]], np.float32), np.array([[1.0, 3.0]]), 0.0)
    model = replace(chance(1, 1, 0), heights=np.zeros((1, 5), np.float32), trees=additive.of_depth(small))
    said = additive.said(model, np.array([[0, 1]], np.float32), np.zeros((0, 1), np.float32), np.zeros(2, np.int64))
    assert said.tolist() == [1, 3]


def test_trees_of_another_depth_are_refused() -> None:
    flat = Forest(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32), np.zeros((1, 2)), 0.0)
    with pytest.raises(SnapshotBroken):
        additive.from_arrays(additive.to_arrays(replace(chance(1, 2, 1), trees=flat)), "", 2)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40))
def test_products_of_16_bit_floats_are_those_of_32(seed: int, items: int, wide: int) -> None:
    random = np.random.default_rng(seed)
    stored = (random.standard_normal((items, wide)) * 10.0 ** random.integers(-7, 1, (items, 1))).astype(np.float16)
    rows, vector = random.integers(-1, items, 20), random.standard_normal(wide).astype(np.float32)
    found = text_values.products(stored, rows, vector)
    np.testing.assert_allclose(found, text_values.readable_products(stored, rows, vector), rtol=1e-4, atol=1e-6)
