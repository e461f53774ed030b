"""What runs inside Spark's executors: cells to blocks of rows, blocks to the vectors of their rows, people to their lists.

Tables come in and go out as Arrow batches, by `mapInArrow`. What the steps of a fit work on are blocks of NumPy arrays: a job
on these has no query to be planned, which took longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
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

Keys = NDArray[np.int64]
Floats = NDArray[np.float32]
T = TypeVar("T", covariant=True)

SPLIT = "part int, rows binary, columns binary, cells binary"
PEOPLE = "place long, vectors binary, offsets binary, columns binary"
LISTS = "place long, rows binary, scores binary"
"""Columns of tables whose arrays are bytes: Spark moves those without looking at them."""

MIXED = np.uint64(0x9E3779B97F4A7C15)
"""Keys times this have bits that nobody chose (Knuth's multiplicative hashing)."""
MOST_CELLS = 1 << 18
"""In a block, unless one row alone has more."""


@dataclass(frozen=True, eq=False)
class Part:
    """All cells of the rows of a part, by the keys that users and items have."""

    number: int
    keys: NDArray[np.int64]
    """(R,) of the rows, ascending"""
    offsets: NDArray[np.int64]
    """(R + 1,)"""
    columns: NDArray[np.int64]
    """(N,) keys, in any order within a row"""
    cells: Floats
    """(N,)"""


@dataclass(frozen=True, eq=False)
class Counted:
    """What the driver has to know of a part."""

    number: int
    keys: NDArray[np.int64]
    """(R,)"""
    counts: NDArray[np.int64]
    """(R,) cells of each"""
    total: float
    """Of the cells' strengths"""


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a matrix."""

    rows: NDArray[np.int32]
    cells: Sparse
    """Of these rows."""


@dataclass(frozen=True, eq=False)
class Solved:
    """The vectors of a block's rows."""

    rows: NDArray[np.int32]
    vectors: Floats
    """(n, F)"""
    loss: float
    ridges: float

    @property
    def place(self) -> int:
        """Tells blocks apart, and in which order losses are summed."""
        return int(self.rows[0])


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


def split(
    batches: Iterator[pa.RecordBatch], params: ImplicitALSParams, parts: int, sides: int
) -> Iterator[pa.RecordBatch]:
    """Interactions (key of the row, key of the column, weight) to cells, in `parts` by the key of the row.

    With two `sides` the transposed matrix follows in as many parts more. A row of the table is all cells that a batch has of a
    part: Spark's shuffle has few rows to move.
    """
    for batch in batches:
        keys = [np.asarray(batch.column(n), np.int64) for n in range(2)]
        cells = implicit_als.strengths(np.array(batch.column(2), np.float32), params)
        kept = cells != 0
        row, column, cells = keys[0][kept], keys[1][kept], cells[kept]
        for side, (own, other) in enumerate(((row, column), (column, row))[:sides]):
            yield _by_part(own, other, cells, parts, side * parts)


def _by_part(row: Keys, column: Keys, cells: Floats, parts: int, first: int) -> pa.RecordBatch:
    import pyarrow as pa

    part = (row.astype(np.uint64) * MIXED >> np.uint64(32)) % np.uint64(parts)
    order = np.argsort(part, kind="stable")
    cuts = np.searchsorted(part[order], np.arange(parts + 1, dtype=np.uint64))
    used = np.flatnonzero(np.diff(cuts))
    columns: list[Any] = [(first + used).astype(np.int32)]
    for values in (row, column, cells):
        ordered = values[order]
        columns.append([ordered[cuts[n] : cuts[n + 1]].tobytes() for n in used])
    kinds = (pa.int32(), pa.binary(), pa.binary(), pa.binary())
    names = [column.split()[0] for column in SPLIT.split(", ")]
    return pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)], names=names)


def gathered(split: Iterable[Any]) -> Iterator[Part]:
    """All rows of `SPLIT` of a part as one."""
    found = [(row.part, *_arrays(row)) for row in split]
    if not found:
        return
    row, column, cells = (np.concatenate([arrays[n] for arrays in found]) for n in (1, 2, 3))
    number = found[0][0]
    del found
    order = np.argsort(row, kind="stable")
    keys, counts = np.unique(row, return_counts=True)
    yield Part(number, keys, np.append(0, np.cumsum(counts)), column[order], cells[order])


def _arrays(row: Any) -> tuple[Keys, Keys, Floats]:
    return np.frombuffer(row.rows, np.int64), np.frombuffer(row.columns, np.int64), np.frombuffer(row.cells, np.float32)


def counted(part: Part) -> Counted:
    """What there is in a part."""
    total = float(np.abs(part.cells).sum(dtype=np.float64))
    return Counted(part.number, part.keys, np.diff(part.offsets), total)


def to_blocks(parts: Iterator[Part], numbers: Sent[tuple[Numbers, Numbers]], of: int) -> Iterator[Block]:
    """Parts to blocks of the matrix whose rows are of the side 0 or 1; cells of keys that have no number are left out."""
    own, other = numbers.value[of], numbers.value[1 - of]
    for part in parts:
        rows = own.of(part.keys)
        row, column = np.repeat(np.arange(len(rows)), np.diff(part.offsets)), other.of(part.columns)
        kept = (column >= 0) & (rows[row] >= 0)
        cells = matrix.sparse(row[kept], column[kept], part.cells[kept], (len(rows), len(other.keys)))
        order = np.argsort(rows, kind="stable")
        order = order[cells.counts[order] > 0]  # rows asked for most lie together, as in the whole matrix
        rows, cells = rows[order], matrix.taken(cells, order)
        yield from cut(rows, cells)


def cut(rows: NDArray[np.int32], cells: Sparse) -> Iterator[Block]:
    """These rows of a matrix in blocks."""
    for first, last in _cuts(cells.offsets):
        yield Block(rows[first:last], matrix.taken(cells, np.arange(first, last)))


def _cuts(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    first, last = 0, len(offsets) - 1
    while first < last:
        after = int(np.searchsorted(offsets, offsets[first] + MOST_CELLS, side="right")) - 1
        yield first, (first := max(after, first + 1))


def solved(blocks: Iterator[Block], other: Sent[Fixed], evidence: Evidence) -> Iterator[Solved]:
    """Blocks to their rows' vectors, by as many threads as the task has processors."""
    first = next(blocks, None)
    if first is None:
        return
    factors, known = other.value.vectors.shape[1], _aligned(other.value)
    with ThreadPoolExecutor(_processors()) as pool:
        for block in chain([first], blocks):
            result = padded(np.empty((len(block.rows), 0), np.float32), factors)
            loss, ridges = als_steps.solve(block.cells, known, evidence, known.vectors[:0], result, pool)
            yield Solved(block.rows, np.ascontiguousarray(result[:, :factors]), loss, ridges)


def listed(batches: Iterator[pa.RecordBatch], items: Sent[Floats], limit: int) -> Iterator[pa.RecordBatch]:
    """Blocks of people, with what is left out for each, to the `limit` items (m, F) of the greatest products with each."""
    for block in (block for batch in batches for block in batch.to_pylist()):
        offsets = np.frombuffer(block["offsets"], np.int64).copy()
        columns = np.frombuffer(block["columns"], np.int32).copy()
        seen = Sparse(offsets, columns, np.ones(len(columns), np.float32), len(items.value))
        people = np.frombuffer(block["vectors"], np.float32).reshape(len(seen), -1).copy()
        tops = top_lists.best(people, items.value, limit, seen, _processors())
        yield _one_row({"place": block["place"], "rows": tops.rows.tobytes(), "scores": tops.scores.tobytes()})


def _one_row(values: dict[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([values])


def _aligned(other: Fixed) -> Fixed:
    """As the kernels want the vectors, which come without padding."""
    return replace(other, vectors=padded(other.vectors, other.vectors.shape[1]))


def _processors() -> int:
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.cpus() if task is not None else 1
