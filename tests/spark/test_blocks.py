"""What runs inside Spark's executors, without Spark: cells to blocks, blocks to vectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate import matrix
from palate.models import als_steps
from palate.models.als_steps import Evidence, padded
from palate.models.implicit_als import ImplicitALSParams
from palate.spark import blocks
from palate.spark.blocks import Block, Numbers, Part

T = TypeVar("T")
TOLD = Evidence(0.1, 0.0, 0.01, 1.0)


@dataclass
class Sent(Generic[T]):
    """What stands for a broadcast."""

    value: T


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch(list(columns.values()), names=list(columns))


def parts_of(found: list[pa.RecordBatch]) -> dict[int, Part]:
    """What is gathered of each part."""
    rows = sorted((row for batch in found for row in batch.to_pylist()), key=lambda row: row["part"])
    groups = [list(group) for _, group in groupby((SimpleNamespace(**row) for row in rows), lambda row: row.part)]
    parts = [part for group in groups for part in blocks.gathered(iter(group))]
    return {part.number: part for part in parts}


def test_cells_have_the_numbers_of_their_keys_and_only_those_that_are_evidence() -> None:
    users = Numbers(np.array([5, 7, 9]), np.array([2, 0, 1], np.int32))
    items = Numbers(np.array([100, 200]), np.array([1, 0], np.int32))
    told = batch(
        user=pa.array([9, 5, 6, 7, 7, 9], pa.int64()),
        item=pa.array([200, 100, 100, 300, 100, 100], pa.int64()),
        weight=pa.array([3, 2, 1, 1, 0, 1], pa.float32()),
    )
    found = parts_of(list(blocks.split(iter([told, told.slice(0, 0)]), ImplicitALSParams(alpha=2, power=2), 1, 2)))
    assert (sorted(found), found[0].keys.tolist(), found[1].keys.tolist()) == ([0, 1], [5, 6, 7, 9], [100, 200, 300])
    known = blocks.counted(found[1])
    assert (known.counts.tolist(), known.total) == ([3, 1, 1], 18 + 8 + 2 + 2 + 2)
    (by_user,) = blocks.to_blocks(iter([found[0]]), Sent((users, items)), 0)
    assert by_user.rows.tolist() == [1, 2]
    assert [part.tolist() for part in by_user.cells.row(0)] == [[0, 1], [18, 2]]
    (by_item,) = blocks.to_blocks(iter([found[1]]), Sent((users, items)), 1)
    assert (by_item.rows.tolist(), by_item.cells.columns.tolist()) == ([0, 1], [1, 1, 2])
    assert by_item.cells.values.tolist() == [18, 2, 8]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40), st.integers(1, 9))
def test_every_cell_is_in_one_part_with_all_others_of_its_row(keys: list[int], parts: int) -> None:
    told = batch(user=pa.array(keys, pa.int64()), item=pa.array(range(len(keys))), weight=pa.array([1.0] * len(keys)))
    found = parts_of(list(blocks.split(iter([told]), ImplicitALSParams(), parts, 1)))
    assert sorted(key for part in found.values() for key in part.keys) == sorted(set(keys))
    assert sorted(item for part in found.values() for item in part.columns) == list(range(len(keys)))


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
    cells = batch(
        user=pa.array(rows[order]), item=pa.array(columns[order]), weight=pa.array(values[order], pa.float32())
    )
    (part,) = parts_of(list(blocks.split(iter([cells]), ImplicitALSParams(), 1, 1))).values()
    own, others = (Numbers(np.arange(n), np.arange(n, dtype=np.int32)) for n in (7, 5))
    made = list(blocks.to_blocks(iter([part]), Sent((own, others)), 0))
    assert len(made) == {1: 4, 4: 2, 1000: 1}[most]
    with ThreadPoolExecutor(1) as pool:
        known = als_steps.fixed(padded(other, 16), whole.counts, TOLD, pool)
    found = np.zeros((7, 16), np.float32)
    for told in blocks.solved(iter(made), Sent(known), TOLD):
        found[told.rows] = told.vectors
    np.testing.assert_allclose(found, als_steps.readable_half_step(whole, other.astype(float), TOLD), atol=1e-4)


def test_a_part_without_cells_gives_nothing() -> None:
    assert list(blocks.gathered(iter([]))) == []
    nothing: list[Block] = []
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
