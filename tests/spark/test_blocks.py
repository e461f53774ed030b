"""What runs inside Spark's executors, without Spark: cells to blocks, blocks to vectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pytest

from palate import matrix
from palate.models import als_steps
from palate.models.als_steps import Evidence, padded
from palate.models.implicit_als import ImplicitALSParams
from palate.spark import blocks
from palate.spark.blocks import Numbers

T = TypeVar("T")
TOLD = Evidence(0.1, 0.0, 0.01, 1.0)


@dataclass
class Sent(Generic[T]):
    """What stands for a broadcast."""

    value: T


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch(list(columns.values()), names=list(columns))


def test_cells_have_the_numbers_of_their_keys_and_only_those_that_are_evidence() -> None:
    users = Numbers(np.array([5, 7, 9]), np.array([2, 0, 1], np.int32))
    items = Numbers(np.array([100, 200]), np.array([1, 0], np.int32))
    given = batch(
        user=pa.array([9, 5, 6, 7, 7], pa.int64()),
        item=pa.array([200, 100, 100, 300, 100], pa.int64()),
        weight=pa.array([3, 2, 1, 1, 0], pa.float32()),
    )
    (found,) = blocks.numbered(iter([given]), Sent(users), Sent(items), ImplicitALSParams(alpha=2, power=2))
    assert found.to_pydict() == {"row": [1, 2], "column": [0, 1], "value": [18.0, 8.0]}


def test_nobody_known_has_no_cells() -> None:
    nobody = Numbers(np.zeros(0, np.int64), np.zeros(0, np.int32))
    assert nobody.of(np.array([3, 4])).tolist() == [-1, -1]


@pytest.mark.parametrize("most", [1, 4, 1000])
def test_blocks_solve_to_what_the_whole_matrix_does(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(blocks, "MOST_CELLS", most)
    random = np.random.default_rng(1)
    rows, columns = np.array([0, 0, 0, 0, 0, 2, 2, 3, 6]), np.array([3, 1, 0, 2, 4, 4, 1, 0, 2])
    values = random.uniform(1, 3, len(rows)).astype(np.float32)
    whole, other = matrix.sparse(rows, columns, values, (7, 5)), random.standard_normal((5, 16)).astype(np.float32)
    order = random.permutation(len(rows))
    cells = [
        batch(row=rows[part].astype(np.int32), column=columns[part].astype(np.int32), value=values[part])
        for part in np.array_split(order, 3)
    ]
    made = list(blocks.to_blocks(iter(cells), 5))
    assert len(made) == {1: 4, 4: 2, 1000: 1}[most]
    with ThreadPoolExecutor(1) as pool:
        known = als_steps.fixed(padded(other, 16), whole.counts, TOLD, pool)
    found = np.zeros((7, 16), np.float32)
    for answer in blocks.solved(iter(made), Sent(known), TOLD):
        (told,) = answer.to_pylist()
        found[np.frombuffer(told["rows"], np.int32)] = np.frombuffer(told["vectors"], np.float32).reshape(-1, 16)
    np.testing.assert_allclose(found, als_steps.readable_half_step(whole, other.astype(float), TOLD), atol=1e-4)


def test_a_part_without_cells_gives_nothing() -> None:
    assert list(blocks.to_blocks(iter([]), 5)) == []
    nothing: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(1) as pool:
        known = als_steps.fixed(padded(np.ones((2, 16)), 16), np.zeros(0, np.int64), TOLD, pool)
    assert list(blocks.solved(iter(nothing), Sent(known), TOLD)) == []


def test_lists_of_a_block_leave_out_what_was_seen() -> None:
    items, people = np.array([[1.0, 0], [0, 2], [3, 3]], np.float32), np.array([[1.0, 1], [0, 1]], np.float32)
    given = {
        "place": 5,
        "vectors": people.tobytes(),
        "offsets": np.array([0, 1, 1]).tobytes(),
        "columns": np.array([2], np.int32).tobytes(),
    }
    (answer,) = blocks.listed(iter([pa.RecordBatch.from_pylist([given])]), Sent(items), 2)
    (told,) = answer.to_pylist()
    assert np.frombuffer(told["rows"], np.int32).reshape(2, 2).tolist() == [[1, 0], [2, 1]]
    assert np.frombuffer(told["scores"], np.float32).reshape(2, 2).tolist() == [[2, 1], [3, 2]]
    assert told["place"] == 5
