"""Bent lines and small trees over columns, summed up: a ranker of many items at once, of which some columns are looked up.

What two or three columns say together the trees add to what each says alone (Lou, Caruana and Gehrke, "Intelligible Models for
Classification and Regression", KDD 2012). Columns that only a few rows differ in are kept once for each of these few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.machine_code import compiled
from palate.models import forest
from palate.models.forest import BLOCK, Forest

Floats = NDArray[np.float32]

FREEDOMS = frozenset(("nsz", "nnan", "contract"))
"""The order of sums stays, so that an item's value doesn't depend on which others are asked about."""
DEPTH = 4
"""Questions of each tree."""
FOREST = "trees_"
"""How the names of the trees' arrays begin."""


@dataclass(frozen=True, eq=False)
class Additive:
    """A line for each of C columns, and trees over the same columns."""

    bends: Floats
    """(C, B), ascending in each row."""
    heights: Floats
    """(C, B): what each column adds there; between them straight, beyond them level."""
    trees: Forest
    """Of DEPTH questions each; where it starts makes no order."""
    known: dict[int, tuple[NDArray[np.int32], NDArray[np.int32], Floats]] = field(init=False, default_factory=dict)
    """What `laid_out` has found."""

    def laid_out(self, direct: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
        """Where the first `direct` columns are given: which of the others the trees ask about, where the columns of their
        questions are found when those come next one by one, and by how much each line gets steeper at each bend."""
        if direct not in self.known:
            asked = np.unique(self.trees.columns[np.isfinite(self.trees.borders)])
            looked = asked[asked >= direct]
            place = np.arange(len(self.bends), dtype=np.int32)
            place[looked] = direct + np.arange(len(looked))
            self.known[direct] = looked, place[self.trees.columns], _changes(self)
        return self.known[direct]


def said(model: Additive, table: Floats, looked_up: Floats, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n,) the larger the likelier to be on top: of the first columns, the rows of `table` (D, n), and the others, `looked_up`
    (C − D, m) at each one's place in `rows` (n,)."""
    total, (looked, columns, changes) = np.empty(table.shape[1], np.float32), model.laid_out(len(table))
    compiled(
        _say,
        np.ascontiguousarray(table),
        np.ascontiguousarray(looked_up),
        rows.astype(np.uint32),  # numbers that can't be below 0 are looked up faster
        (model.bends, changes, np.ascontiguousarray(model.heights[:, 0])),
        looked - len(table),
        (columns, model.trees.borders, model.trees.leaves.astype(np.float32)),
        total,
        fastmath=FREEDOMS,
    )
    return total


def readable(model: Additive, columns: Floats) -> NDArray[np.float64]:
    """What `said` gives of the columns (C, n), as it reads."""
    total = forest.readable(model.trees, columns.T) - model.trees.start
    for column, bends, heights in zip(columns, model.bends, model.heights, strict=True):
        total += np.interp(column, bends, heights)
    return total


def lines(model: Additive, columns: Floats, first: int = 0) -> Floats:
    """(n,) what the lines of these columns (c, n), those from the one numbered `first` on, add."""
    mine = slice(first, first + len(columns))
    total = np.full(columns.shape[1], model.heights[mine, 0].sum(), np.float32)
    for column, bends, changes in zip(columns, model.bends[mine], _changes(model)[mine], strict=True):
        if changes.any():
            inside = np.clip(column, bends[0], bends[-1])
            total += changes @ np.maximum(inside - bends[:, np.newaxis], 0)
    return total


def _changes(model: Additive) -> Floats:
    """(C, B) by how much each line gets steeper at each bend."""
    slopes = np.diff(model.heights) / np.diff(model.bends)
    return np.diff(slopes, axis=1, prepend=np.float32(0), append=np.float32(0))[:, : model.bends.shape[1]]


def prepare(model: Additive, direct: int) -> None:
    """Make the machine code now, so that no request waits for it; `direct` of the columns are given."""
    others = len(model.bends) - direct
    said(model, np.zeros((direct, 1), np.float32), np.zeros((others, 1), np.float32), np.zeros(1, np.int64))


def _say(table: Any, looked_up: Any, rows: Any, lines: Any, looked: Any, trees: Any, total: Any) -> None:
    """Block by block, so that its columns stay in the cache."""
    bends, changes, starts = lines
    columns, borders, leaves = trees
    direct, place = len(table), np.empty(BLOCK, np.uint32)
    every, block = np.zeros(looked_up.shape[1], np.float32), np.empty((len(looked) + 1, BLOCK), np.float32)
    for column in range(len(looked_up)):
        at = direct + column
        _bend(looked_up[column], bends[at], changes[at], starts[at], every)
    for first in range(0, len(total), BLOCK):
        last = min(first + BLOCK, len(total))
        own, mine = total[first:last], rows[first:last]
        _look_up(every, mine, own)
        for column in range(direct):
            _bend(table[column, first:last], bends[column], changes[column], starts[column], own)
        for number in range(len(looked)):
            _look_up(looked_up[looked[number]], mine, block[number])
        for tree in range(len(columns)):
            one, two, three, four = columns[tree]
            _ask(
                table[one, first:last] if one < direct else block[one - direct, : last - first],
                table[two, first:last] if two < direct else block[two - direct, : last - first],
                table[three, first:last] if three < direct else block[three - direct, : last - first],
                table[four, first:last] if four < direct else block[four - direct, : last - first],
                borders[tree],
                place,
            )
            _add(leaves[tree], place, own)


def _bend(column: Any, bends: Any, changes: Any, start: Any, total: Any) -> None:
    highest, none = bends[-1], np.float32(0)
    for row in range(len(total)):
        total[row] += start
    for bend in range(len(bends) - 1):
        at, change = bends[bend], changes[bend]
        for row in range(len(total)):
            above = (highest if column[row] > highest else column[row]) - at
            total[row] += change * (above if above > none else none)


def _look_up(values: Any, rows: Any, found: Any) -> None:
    for row in range(len(rows)):
        found[row] = values[rows[row]]


def _ask(one: Any, two: Any, three: Any, four: Any, borders: Any, place: Any) -> None:
    """As `forest` asks, all questions of a tree in one pass."""
    first, second, third, last = borders[0], borders[1], borders[2], borders[3]
    none = np.uint32(0)
    for row in range(len(one)):
        place[row] = (
            (np.uint32(1) if one[row] > first else none)
            | (np.uint32(2) if two[row] > second else none)
            | (np.uint32(4) if three[row] > third else none)
            | (np.uint32(8) if four[row] > last else none)
        )


def _add(leaves: Any, place: Any, total: Any) -> None:
    for row in range(len(total)):
        total[row] += leaves[place[row]]


def of_depth(trees: Forest) -> Forest:
    """The same trees with DEPTH questions each: nothing is above the border of one that is added."""
    more = DEPTH - trees.columns.shape[1]
    assert more >= 0, "Trees beside lines ask few questions."
    return Forest(
        columns=np.pad(trees.columns, ((0, 0), (0, more))),
        borders=np.pad(trees.borders, ((0, 0), (0, more)), constant_values=np.inf),
        leaves=np.pad(trees.leaves, ((0, 0), (0, 2**DEPTH - trees.leaves.shape[1]))),
        start=trees.start,
    )


def to_arrays(model: Additive) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of it."""
    trees = {f"{FOREST}{name}": array for name, array in forest.to_arrays(model.trees).items()}
    return {"bends": model.bends, "heights": model.heights, **trees}


def from_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str, columns: int) -> Additive:
    """A copy of what a snapshot holds. Raises SnapshotBroken when it isn't of so many columns."""
    bends, heights = (np.array(arrays[f"{prefix}{name}"], np.float32) for name in ("bends", "heights"))
    if bends.shape != heights.shape or len(bends) != columns:
        raise SnapshotBroken(f"The lines of the snapshot don't fit to the {columns} columns of this Palate")
    trees = forest.from_arrays(arrays, f"{prefix}{FOREST}", columns)
    if trees.columns.shape[1] != DEPTH:
        raise SnapshotBroken(
            f"The light ranker's trees of the snapshot ask {trees.columns.shape[1]} questions, not {DEPTH}"
        )
    return Additive(bends, heights, trees)
