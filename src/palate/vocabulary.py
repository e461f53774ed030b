"""Which row of an array belongs to which 64-bit key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T", np.float32, np.int32)

SPARSEST = 8
"""Numbers for each key up to which a table of all numbers is worth its memory."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Row r belongs to `keys[r]`; the keys are sorted, so that one array is all there is to keep and to look up in."""

    keys: NDArray[np.int64]
    """(n,), ascending, each once."""

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: ArrayLike) -> NDArray[np.int64]:
        """Row of each key, −1 for those that aren't in it.

        >>> vocabulary([7, 3, 7]).rows([3, 5, 7]).tolist()
        [0, -1, 1]
        """
        wanted = np.asarray(keys, np.int64)
        if not len(self.keys):
            return np.full(wanted.shape, -1, np.int64)
        if wanted.shape == self.keys.shape and np.array_equal(wanted, self.keys):
            return np.arange(len(self.keys))  # as often when millions are asked for; a search takes 50 times as long
        table: NDArray[np.int32] | None = vars(self).get("places")
        if table is None and 8 * wanted.size >= len(self.keys):  # searching takes five times as long
            table = self._table()
        if table is not None:
            return self._looked_up(table, wanted)
        places = self.keys.searchsorted(wanted)
        return np.where(self.keys.take(places, mode="clip") == wanted, places, -1)

    @cached_property
    def places(self) -> NDArray[np.int32] | None:
        """(span,) the row of each number from the first key to the last, −1 for what is none; None where they lie too far apart.

        Made once by whoever asks a large vocabulary for a few rows again and again: then nothing is searched any more."""
        return self._table()

    def _table(self) -> NDArray[np.int32] | None:
        if not len(self.keys):
            return None
        lowest, span = self.keys[0], int(self.keys[-1]) - int(self.keys[0]) + 1
        if span > SPARSEST * len(self.keys):
            return None
        table = np.full(span, -1, np.int32)
        table[self.keys - lowest] = np.arange(len(self.keys), dtype=np.int32)
        return table

    def _looked_up(self, table: NDArray[np.int32], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        lowest = self.keys[0]
        inside = (wanted >= lowest) & (wanted <= self.keys[-1])
        if inside.all():
            return np.asarray(table[wanted - lowest], np.int64)
        return np.where(inside, table[np.where(inside, wanted, lowest) - lowest], -1)

    def extended(self, keys: ArrayLike) -> Vocabulary:
        """With these keys as well; itself when it has them all. Keys that aren't the largest move rows: see `moved`."""
        wanted = np.asarray(keys, np.int64).reshape(-1)
        fresh = wanted[self.rows(wanted) < 0]
        if not len(fresh):
            return self
        fresh = np.unique(fresh)  # of few; of all it would take longest
        return Vocabulary(np.insert(self.keys, np.searchsorted(self.keys, fresh), fresh))

    def within(self, other: Vocabulary) -> Vocabulary:
        """Without the keys that the other hasn't; itself when it has them all."""
        known = other.rows(self.keys) >= 0
        return self if known.all() else Vocabulary(self.keys[known])


def vocabulary(keys: ArrayLike) -> Vocabulary:
    """The vocabulary of these keys, in whatever order and however often they come."""
    return Vocabulary(np.unique(np.asarray(keys, np.int64)))


def moved(values: NDArray[T], old: Vocabulary, new: Vocabulary) -> NDArray[T]:
    """A copy of `values` (a row for each of `old`) with a row for each of `new`: every key keeps its row, others are zero."""
    result = np.zeros((len(new), *values.shape[1:]), values.dtype)
    rows = new.rows(old.keys)
    for start, end in runs(rows):
        if rows[start] >= 0:
            result[rows[start] : rows[start] + end - start] = values[start:end]
    return result


def runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where rows that follow one another begin and end: few millions are moved by more than some thousand copies."""
    bounds = np.flatnonzero(np.diff(rows) != 1) + 1
    return pairwise([0, *bounds.tolist(), len(rows)] if len(rows) else [])
