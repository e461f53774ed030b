"""Sparse matrices by rows: who did what with which item, as models take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.vocabulary import Vocabulary


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
    code = rows.astype(np.int64) * shape[1] + columns
    if (code[1:] <= code[:-1]).any():
        order = np.argsort(code, kind="stable")
        last = np.append(code[order][1:] != code[order][:-1], True)[: len(order)]
        chosen = order[last]
        rows, columns, values = rows[chosen], columns[chosen], values[chosen]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    return Sparse(offsets.astype(np.int64), columns.astype(np.int32), values.astype(np.float32), shape[1])


def of_interactions(
    interactions: Interactions, values: NDArray[np.float32], users: Vocabulary, items: Vocabulary
) -> Sparse:
    """A row for each of `users`, a column for each of `items`; pairs of others and values that are NaN are left out.

    `values` has one value a pair: labels or weights.
    """
    rows, columns = users.rows(interactions.user), items.rows(interactions.item)
    kept = (rows >= 0) & (columns >= 0) & ~np.isnan(values)
    return sparse(rows[kept], columns[kept], values[kept], (len(users), len(items)))


def transposed(matrix: Sparse) -> Sparse:
    """Rows and columns exchanged."""
    rows = np.repeat(np.arange(len(matrix), dtype=np.int32), matrix.counts)
    order = np.argsort(matrix.columns, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(matrix.columns, minlength=matrix.width))))
    return Sparse(offsets.astype(np.int64), rows[order], matrix.values[order], len(matrix))


def taken(matrix: Sparse, rows: NDArray[np.int64]) -> Sparse:
    """The matrix of these rows, in this order; a row −1 is empty."""
    known = rows >= 0
    starts = np.where(known, matrix.offsets[rows], 0)
    counts = np.where(known, matrix.offsets[rows + 1] - starts, 0)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    cells = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return Sparse(offsets, matrix.columns[cells], matrix.values[cells], matrix.width)
