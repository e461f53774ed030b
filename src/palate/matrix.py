"""Sparse matrices by rows: who did what with which item, as models take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.machine_code import compiled
from palate.vocabulary import Vocabulary

CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Sparse:
    """R rows of (column, value) cells; the cells of row r are `columns[offsets[r]:offsets[r + 1]]`, each column once."""

    offsets: NDArray[np.int64]
    """(R + 1,), from 0 to N."""
    columns: NDArray[np.int32]
    """(N,), ascending within a row."""
    values: NDArray[np.float32]
    """(N,)"""
    width: int
    """Number of columns."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """(R,) cells of each row."""
        return np.diff(self.offsets)

    def row(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Columns and values of one row."""
        cells = slice(self.offsets[row], self.offsets[row + 1])
        return self.columns[cells], self.values[cells]


def sparse(
    rows: NDArray[np.integer[Any]],
    columns: NDArray[np.integer[Any]],
    values: NDArray[np.float32],
    shape: tuple[int, int],
) -> Sparse:
    """The matrix with these cells, in any order; of several values for one cell the last holds.

    >>> sparse(np.array([1, 0]), np.array([2, 1]), np.array([0.5, 4], np.float32), (2, 3)).offsets.tolist()
    [0, 1, 2]
    """
    if not _ascending(rows, columns):
        code = rows.astype(np.int64) * shape[1] + columns
        order = np.argsort(code, kind="stable")
        last = np.append(code[order][1:] != code[order][:-1], True)[: len(order)]
        chosen = order[last]
        rows, columns, values = rows[chosen], columns[chosen], values[chosen]
    # in the rows' own type, or numpy would make a copy of them
    offsets = np.searchsorted(rows, np.arange(shape[0] + 1).astype(rows.dtype))
    return Sparse(
        offsets.astype(np.int64),
        columns.astype(np.int32, copy=False),
        values.astype(np.float32, copy=False),
        shape[1],
    )


def _ascending(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]]) -> bool:
    """Whether the cells are by rows and then columns, each once."""
    for start in range(0, len(rows), CHUNK):  # a million at a time, for the memory
        row, column = rows[start : start + CHUNK + 1], columns[start : start + CHUNK + 1]
        if ((row[1:] < row[:-1]) | ((row[1:] == row[:-1]) & (column[1:] <= column[:-1]))).any():
            return False
    return True


def of_interactions(
    interactions: Interactions, values: NDArray[np.float32], users: Vocabulary, items: Vocabulary
) -> Sparse:
    """A row for each of `users`, a column for each of `items`; pairs of others and values that are NaN are left out.

    `values` has one value a pair: labels or weights.
    """
    size = len(interactions)
    rows, columns = np.empty(size, np.int32), np.empty(size, np.int32)
    found = np.empty(size, np.float32)
    end = 0
    for start in range(0, size, CHUNK):  # a million at a time: rows of 64 bits would take more than the matrix
        part = slice(start, start + CHUNK)
        user, item = users.rows(interactions.user[part]), items.rows(interactions.item[part])
        kept = (user >= 0) & (item >= 0) & ~np.isnan(values[part])
        place = slice(end, end + int(kept.sum()))
        rows[place], columns[place], found[place] = user[kept], item[kept], values[part][kept]
        end = place.stop
    return sparse(rows[:end], columns[:end], found[:end], (len(users), len(items)))


def transposed(
    matrix: Sparse, row_order: NDArray[np.int64] | None = None, column_order: NDArray[np.int64] | None = None
) -> Sparse:
    """Rows and columns exchanged: a row for each column, in `column_order`, a column for each row, in `row_order`.

    Orders are permutations; None means as they are.
    """
    rows = np.arange(len(matrix)) if row_order is None else row_order
    rank = np.empty(matrix.width, np.int64)
    rank[slice(None) if column_order is None else column_order] = np.arange(matrix.width)
    counts = np.zeros(matrix.width, np.int64)
    counts[rank] = np.bincount(matrix.columns, minlength=matrix.width)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    columns, values = np.empty_like(matrix.columns), np.empty_like(matrix.values)
    cells = matrix.offsets, matrix.columns, matrix.values
    compiled(_scatter, *cells, rows, rank, offsets[:-1].copy(), columns, values)
    return Sparse(offsets, columns, values, len(matrix))


def _scatter(
    offsets: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    rank: NDArray[np.int64],
    places: NDArray[np.int64],
    new_columns: NDArray[np.int32],
    new_values: NDArray[np.float32],
) -> None:
    """Row `rows[n]` becomes column n, column c row `rank[c]`; `places` is where each new row's next cell goes."""
    for n in range(len(rows)):
        for cell in range(offsets[rows[n]], offsets[rows[n] + 1]):
            row = rank[columns[cell]]
            new_columns[places[row]] = n
            new_values[places[row]] = values[cell]
            places[row] += 1


def taken(matrix: Sparse, rows: NDArray[np.int64]) -> Sparse:
    """The matrix of these rows, in this order; a row −1 is empty."""
    known = rows >= 0
    starts = np.where(known, matrix.offsets[rows], 0)
    counts = np.where(known, matrix.offsets[rows + 1] - starts, 0)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    cells = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return Sparse(offsets, matrix.columns[cells], matrix.values[cells], matrix.width)


def spread(matrix: Sparse, rows: NDArray[np.int64], columns: NDArray[np.int64], height: int, width: int) -> Sparse:
    """A matrix of `height` rows, of which `rows[r]` is the row r of this and others are empty; likewise columns. Both ascend."""
    counts = np.zeros(height, np.int64)
    counts[rows] = matrix.counts
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return Sparse(offsets, columns.astype(np.int32)[matrix.columns], matrix.values, width)


def moved_rows(values: NDArray[Any], rows: NDArray[np.int64], height: int) -> NDArray[Any]:
    """An array of `height` rows: row n goes to `rows[n]`, those to −1 nowhere, and the others are zero."""
    found = np.zeros((height, *values.shape[1:]), values.dtype)
    found[rows[rows >= 0]] = values[rows >= 0]
    return found
