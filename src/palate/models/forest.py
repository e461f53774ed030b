"""Fitted trees as arrays, asked in machine code: whoever serves needs no CatBoost, and waits a tenth of the time.

Each tree asks the same question at all places of a level (oblivious trees: Kohavi and Li, "Oblivious Decision Trees, Graphs, and
Top-Down Pruning", IJCAI 1995), so that its answer for many rows at once is a few comparisons of whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.machine_code import compiled

Floats = NDArray[np.float32]

BLOCK = 512
"""Rows whose places in a tree stay in the cache."""


@dataclass(frozen=True, eq=False)
class Forest:
    """T trees of D questions each."""

    columns: NDArray[np.int32]
    """(T, D) about which column each question is."""
    borders: Floats
    """(T, D): whether the column is above it. NaN isn't, and nothing is above an infinite one."""
    leaves: NDArray[np.float64]
    """(T, 2 ** D) what a tree adds; the answer to question d is bit d of the place."""
    start: float
    """What is added for every row."""


def raw(forest: Forest, features: Floats) -> NDArray[np.float64]:
    """(n,) what the trees say of the rows of (n, F); fastest where each column lies in one piece."""
    total = np.full(len(features), forest.start)
    columns = np.ascontiguousarray(features.T)
    compiled(_add, forest.columns, forest.borders, forest.leaves, columns, total)
    return total


def readable(forest: Forest, features: Floats) -> NDArray[np.float64]:
    """What `raw` gives, as it reads."""
    bits = 1 << np.arange(forest.columns.shape[1])
    places = (features[:, forest.columns] > forest.borders) @ bits
    found: NDArray[np.float64] = forest.start + forest.leaves[np.arange(len(forest.leaves)), places].sum(axis=1)
    return found


def _add(columns: Any, borders: Any, leaves: Any, table: Any, total: Any) -> None:
    """Add the trees' answers for the rows of (F, n) to (n,)."""
    trees, depth = columns.shape
    place = np.empty(BLOCK, np.int32)
    for first in range(0, len(total), BLOCK):
        size = min(BLOCK, len(total) - first)
        for tree in range(trees):
            place[:size] = 0
            for question in range(depth):
                column = table[columns[tree, question], first : first + size]
                border, bit = borders[tree, question], np.int32(1 << question)
                for row in range(size):
                    place[row] |= bit if column[row] > border else np.int32(0)
            own = leaves[tree]
            for row in range(size):
                total[first + row] += own[place[row]]


def to_arrays(forest: Forest) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it."""
    start = np.array([forest.start])
    return {"columns": forest.columns, "borders": forest.borders, "leaves": forest.leaves, "start": start}


def from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str, wide: int) -> Forest:
    """A copy, which may be written to: machine code for arrays that may not is other code. Raises SnapshotBroken when they are no
    trees about so many columns."""
    forest = Forest(
        columns=np.array(arrays[f"{prefix}columns"], np.int32),
        borders=np.array(arrays[f"{prefix}borders"], np.float32),
        leaves=np.array(arrays[f"{prefix}leaves"], np.float64),
        start=float(arrays[f"{prefix}start"][0]),
    )
    trees, depth = forest.columns.shape
    alike = forest.borders.shape == (trees, depth) and forest.leaves.shape == (trees, 2**depth)
    if not alike or (trees and not 0 <= forest.columns.min() <= forest.columns.max() < wide):
        raise SnapshotBroken(
            f"The trees of the snapshot don't fit together, or not to the {wide} columns of this Palate"
        )
    return forest
