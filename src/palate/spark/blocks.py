"""What runs inside Spark's executors: cells to blocks of rows, blocks to the vectors of their rows, people to their lists.

Each function takes an iterator of Arrow batches and yields batches, as `mapInArrow` asks for it. A block is one row of a table,
its arrays are bytes: Spark moves those without looking at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.matrix import Sparse
from palate.models import als_steps, implicit_als, top_lists
from palate.models.als_steps import Evidence, Fixed, padded
from palate.models.implicit_als import ImplicitALSParams

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]
T = TypeVar("T", covariant=True)

CELLS = "row int, column int, value float"
BLOCKS = "place long, rows binary, offsets binary, columns binary, values binary"
VECTORS = "place long, rows binary, vectors binary, loss double, ridges double"
PEOPLE = "place long, vectors binary, offsets binary, columns binary"
LISTS = "place long, rows binary, scores binary"
"""Columns of the tables; `place` tells blocks apart and in which order losses are summed."""

MOST_CELLS = 1 << 18
"""In a block, unless one row alone has more."""


class Sent(Protocol[T]):
    """What every executor has a copy of: a broadcast of Spark's."""

    @property
    def value(self) -> T: ...


@dataclass(frozen=True, eq=False)
class Numbers:
    """Which row of a matrix each key is."""

    keys: NDArray[np.int64]
    """ascending"""
    rows: NDArray[np.int32]
    """of each key"""

    def of(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows of these keys, −1 for others."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int32)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.rows[places], np.int32(-1))


def numbered(
    batches: Iterator[pa.RecordBatch], own: Sent[Numbers], other: Sent[Numbers], params: ImplicitALSParams
) -> Iterator[pa.RecordBatch]:
    """Interactions (key of the row, key of the column, weight) to cells; of keys that nobody knows there are none."""
    import pyarrow as pa

    for batch in batches:
        row, column = (
            numbers.value.of(np.asarray(batch.column(n), np.int64)) for n, numbers in enumerate((own, other))
        )
        value = implicit_als.strengths(np.array(batch.column(2), np.float32), params)
        kept = (row >= 0) & (column >= 0) & (value != 0)
        yield pa.record_batch(
            [pa.array(values[kept]) for values in (row, column, value)], names=["row", "column", "value"]
        )


def to_blocks(batches: Iterator[pa.RecordBatch], width: int) -> Iterator[pa.RecordBatch]:
    """All cells of a part, whose rows are in no other part, to blocks; `width` is the number of columns."""
    parts = [[np.asarray(column) for column in batch.columns] for batch in batches if batch.num_rows]
    if not parts:
        return
    row, column, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts
    rows, row = np.unique(row, return_inverse=True)
    cells = matrix.sparse(row.astype(np.int32), column, value, (len(rows), width))
    del row, column, value
    for first, last in _cuts(cells.offsets):
        yield _block(rows[first:last], matrix.taken(cells, np.arange(first, last)))


def _cuts(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    first, last = 0, len(offsets) - 1
    while first < last:
        after = int(np.searchsorted(offsets, offsets[first] + MOST_CELLS, side="right")) - 1
        yield first, (first := max(after, first + 1))


def _block(rows: NDArray[np.int32], cells: Sparse) -> pa.RecordBatch:
    arrays: dict[str, NDArray[Any]] = {
        "rows": rows,
        "offsets": cells.offsets,
        "columns": cells.columns,
        "values": cells.values,
    }
    return _one_row({"place": int(rows[0])} | {name: array.tobytes() for name, array in arrays.items()})


def _one_row(values: dict[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([values])


def solved(batches: Iterator[pa.RecordBatch], other: Sent[Fixed], evidence: Evidence) -> Iterator[pa.RecordBatch]:
    """Blocks to their rows' vectors, each (rows, F) in single precision, by as many threads as the task has processors."""
    blocks = (block for batch in batches for block in batch.to_pylist())
    first = next(blocks, None)
    if first is None:
        return
    factors, known = other.value.vectors.shape[1], _aligned(other.value)
    with ThreadPoolExecutor(_processors()) as pool:
        while first is not None:
            cells = _cells(first, len(known.vectors))
            result = padded(np.empty((len(cells), 0), np.float32), factors)
            loss, ridges = als_steps.solve(cells, known, evidence, known.vectors[:0], result, pool)
            vectors = np.ascontiguousarray(result[:, :factors]).tobytes()
            told = {"place": first["place"], "rows": first["rows"], "vectors": vectors, "loss": loss, "ridges": ridges}
            yield _one_row(told)
            first = next(blocks, None)


def listed(batches: Iterator[pa.RecordBatch], items: Sent[Floats], limit: int) -> Iterator[pa.RecordBatch]:
    """Blocks of people, with what is left out for each, to the `limit` items (m, F) of the greatest products with each."""
    for block in (block for batch in batches for block in batch.to_pylist()):
        offsets = np.frombuffer(block["offsets"], np.int64).copy()
        columns = np.frombuffer(block["columns"], np.int32).copy()
        seen = Sparse(offsets, columns, np.ones(len(columns), np.float32), len(items.value))
        people = np.frombuffer(block["vectors"], np.float32).reshape(len(seen), -1).copy()
        tops = top_lists.best(people, items.value, limit, seen, _processors())
        yield _one_row({"place": block["place"], "rows": tops.rows.tobytes(), "scores": tops.scores.tobytes()})


def _cells(block: dict[str, Any], width: int) -> Sparse:
    # copied: the kernels are compiled for arrays that may be written
    return Sparse(
        np.frombuffer(block["offsets"], np.int64).copy(),
        np.frombuffer(block["columns"], np.int32).copy(),
        np.frombuffer(block["values"], np.float32).copy(),
        width,
    )


def _aligned(other: Fixed) -> Fixed:
    """As the kernels want the vectors, which come without padding."""
    return replace(other, vectors=padded(other.vectors, other.vectors.shape[1]))


def _processors() -> int:
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.cpus() if task is not None else 1
