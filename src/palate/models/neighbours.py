"""Weights between items, and scores by them: what item-kNN and EASE both come to.

A row of `Neighbours.weights` belongs to an item that a person knows, its cells to the items that this speaks for (or, below 0,
against). A score is the sum over what the person knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import matrix, splits
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models.material import Known, Material, faded
from palate.vocabulary import Vocabulary

Floats = NDArray[np.float32]
Norms = NDArray[np.float64]

CHUNKS = 16
"""Pieces of work for each thread: enough that none waits long for the other's last one."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A learned model; no function changes its arrays. I items."""

    weights: Sparse
    """(I, I): row i holds what item i, known to a person, adds to the score of each other item."""
    popularity: Floats
    """(I,): the sum of each item's weights over that of the greatest, −1..1."""
    power: float
    """A person's weight w counts as sign(w)·|w|^power, in the fit as in a score."""
    prior: float
    """What a popularity of 1 adds to a score: who is new gets the popular items, and ties fall their way."""
    recent_items: float | None = None
    """See `material.faded`."""


def score_all(model: Neighbours, known: Known) -> Floats:
    """(n, I): for each person the sum of what their items add, and a little for popularity."""
    scores = np.empty((len(known.users), len(model.popularity)), np.float32)
    base = np.float32(model.prior) * model.popularity
    told = faded(known, model.recent_items)
    for person, row in enumerate(scores):
        row[:] = base + _of_one(model, *told.row(person))
    return scores


def _of_one(model: Neighbours, items: NDArray[np.int32], weights: Floats) -> NDArray[np.float64]:
    told = matrix.taken(model.weights, items.astype(np.int64))
    strength = np.repeat(powered(weights, model.power), told.counts)
    sums = np.bincount(told.columns, told.values * strength, minlength=model.weights.width)
    return sums.astype(np.float64)  # of nothing at all numpy makes whole numbers


def score_some(model: Neighbours, known: Known, rows: NDArray[np.int64]) -> Floats:
    """(w,): the scores of these items for one person."""
    near, sums = near_items(model, known)
    own = np.append(sums, np.float32(0))[Vocabulary(near).rows(rows)]
    return np.asarray(np.float32(model.prior) * model.popularity[rows] + own, np.float32)


def near_items(model: Neighbours, known: Known) -> tuple[NDArray[np.int64], Floats]:
    """Rows (m,), ascending, of all neighbours of what one person knows, and the sum of what it adds to each."""
    items, weights = faded(known, model.recent_items).row(0)
    told = matrix.taken(model.weights, items.astype(np.int64))
    strength = np.repeat(powered(weights, model.power), told.counts)
    near, places = np.unique(told.columns, return_inverse=True)
    sums = np.bincount(places, told.values * strength, minlength=len(near))
    return near.astype(np.int64), sums.astype(np.float32)


def contributions(model: Neighbours, known: Known, wanted: NDArray[np.integer[Any]]) -> Floats:
    """(w, n): how much each of the n items of one person adds to the score of each of the w wanted ones."""
    items, weights = faded(known, model.recent_items).row(0)
    told = matrix.taken(model.weights, items.astype(np.int64))
    places = np.full(model.weights.width, -1, np.int64)
    places[wanted] = np.arange(len(wanted))
    cells = np.flatnonzero(places[told.columns] >= 0)
    own = np.repeat(np.arange(len(items)), told.counts)[cells]
    result = np.zeros((len(wanted), len(items)), np.float32)
    result[places[told.columns[cells]], own] = told.values[cells] * powered(weights, model.power)[own]
    return result


def powered(weights: Floats, power: float) -> Floats:
    """sign(w)·|w|^power; 0 stays 0 also at power 0, where all others become 1 or −1. What isn't finite counts as 0."""
    finite = np.where(np.isfinite(weights), weights, np.float32(0))
    return np.asarray(np.sign(finite) * np.abs(finite) ** np.float32(power), np.float32)


def by_users(material: Material, power: float, history_limit: int) -> Sparse:
    """(U, I): the powered weights; of people with more than `history_limit` items only the newest so many."""
    chosen = newest(material.interactions, history_limit)
    values = powered(chosen.weight, power)
    told = np.where(values == 0, np.float32(np.nan), values)
    return matrix.of_interactions(chosen, told, material.users, material.items)


def newest(interactions: Interactions, limit: int) -> Interactions:
    """At most `limit` interactions of each person, the newest; of equal times those of the larger keys."""
    starts = np.flatnonzero(np.append(True, interactions.user[1:] != interactions.user[:-1])[: len(interactions)])
    counts = np.diff(np.append(starts, len(interactions)))
    if not len(counts) or counts.max() <= limit:
        return interactions
    order = np.lexsort((interactions.time, interactions.user))
    left = np.repeat(starts + counts, counts) - np.arange(len(interactions))
    kept = np.sort(order[left <= limit])
    return splits.rows(interactions, kept)


def popularity(users: Sparse) -> Floats:
    """The sum of each column over the largest sum in size."""
    sums = np.bincount(users.columns, users.values.astype(np.float64), minlength=users.width)
    return np.asarray(sums / max(float(np.abs(sums).max(initial=0)), 1e-30), np.float32)


def to_arrays(model: Neighbours, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot, their names beginning with `name`; the rows are those of its items."""
    return {
        f"{name}_offsets": model.weights.offsets,
        f"{name}_items": model.weights.columns,
        f"{name}_weights": model.weights.values,
        f"{name}_popularity": model.popularity,
    }


def header(model: Neighbours) -> dict[str, Any]:
    """The numbers beside the arrays."""
    numbers = {"power": model.power, "prior": model.prior, "recent_items": model.recent_items}
    return numbers | {"weights": len(model.weights.columns)}


def from_arrays(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], name: str) -> Neighbours:
    """The model that a snapshot holds, on its arrays."""
    weights = Sparse(
        arrays[f"{name}_offsets"],
        arrays[f"{name}_items"],
        arrays[f"{name}_weights"],
        len(arrays[f"{name}_popularity"]),
    )
    numbers = float(header["power"]), float(header["prior"]), header.get("recent_items")
    return Neighbours(weights, arrays[f"{name}_popularity"], *numbers)


@dataclass(frozen=True, eq=False)
class Strongest:
    """At most k cells of each of I rows, unordered: of row r the first `counts[r]`."""

    columns: NDArray[np.int32]
    """(I, k)"""
    values: Floats
    counts: NDArray[np.int32]
    """(I,)"""


def turned(strongest: Strongest) -> Sparse:
    """As a matrix with rows and columns exchanged."""
    items, k = strongest.columns.shape
    held = np.arange(k) < strongest.counts[:, None]
    rows = np.repeat(np.arange(items, dtype=np.int32), strongest.counts)
    columns = strongest.columns[held]
    # rows are in order already, so that a stable sort by column is all it takes; 16 bits at a time, which numpy counts
    order = np.argsort((columns & 0xFFFF).astype(np.uint16), kind="stable")
    order = order[np.argsort((columns[order] >> 16).astype(np.uint16), kind="stable")]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(columns, minlength=items))))
    return Sparse(offsets.astype(np.int64), rows[order], strongest.values[held][order], items)


def strongest(
    users: Sparse, items: Sparse, row_norms: Norms, column_norms: Norms, shrinkage: float, k: int, threads: int
) -> Strongest:
    """Of each item its k greatest similarities in size to others: ⟨i, j⟩ / (row norm of i · column norm of j + shrinkage).

    `users` (U, I) and `items` (I, U) are the same cells by rows and by columns. Of equal ones the first columns stay. Memory: the
    answer and one row of I sums for each thread. Every row is summed in the order of the users, so the number of threads doesn't
    change a bit.
    """
    k = min(k, max(len(items) - 1, 1))
    found = Strongest(
        np.zeros((len(items), k), np.int32), np.zeros((len(items), k), np.float32), np.zeros(len(items), np.int32)
    )

    from palate.models import neighbour_kernels  # here: numba takes half a second and 60 MB, and scoring needs none

    if not shrinkage:
        users = replace(users, values=(users.values / column_norms[users.columns]).astype(np.float32))
    arrays = *unsigned(items), *unsigned(users), row_norms, column_norms, float(shrinkage)
    parts = cuts(users, items, threads * CHUNKS)
    with ThreadPoolExecutor(threads) as pool:
        done = [
            pool.submit(neighbour_kernels.strongest, first, last, *arrays, found.columns, found.values, found.counts)
            for first, last in itertools.pairwise(parts)
        ]
        for part in done:
            part.result()
    return found


def unsigned(cells: Sparse) -> tuple[NDArray[Any], NDArray[Any], Floats]:
    """Places that can't be negative: the kernel takes half the time when it needn't ask."""
    return cells.offsets.view(np.uint64), cells.columns.view(np.uint32), cells.values


def cuts(users: Sparse, items: Sparse, parts: int) -> list[int]:
    """Where to cut the rows of items into parts of about equal work."""
    of_cells = np.concatenate(([0], np.cumsum(users.counts[items.columns])))
    work = of_cells[items.offsets] + np.arange(len(items) + 1)
    inner = np.searchsorted(work, np.linspace(0, work[-1], parts + 1)[1:-1])
    return [0, *inner.tolist(), len(items)]


def readable(
    first: int,
    last: int,
    item_offsets: NDArray[np.uint64],
    item_users: NDArray[np.uint32],
    item_values: Floats,
    user_offsets: NDArray[np.uint64],
    user_items: NDArray[np.uint32],
    user_values: Floats,
    row_norms: Norms,
    column_norms: Norms,
    shrinkage: float,
    columns: NDArray[np.int32],
    values: Floats,
    counts: NDArray[np.int32],
) -> None:
    """The twin of `neighbour_kernels.strongest`: fill the rows `first` to `last` − 1, as it is meant.

    Without shrinkage the users' values are divided by the columns' norms already.
    """
    for j in range(first, last):
        sums = np.zeros(len(counts))
        for cell in range(int(item_offsets[j]), int(item_offsets[j + 1])):
            user = item_users[cell]
            of_user = slice(int(user_offsets[user]), int(user_offsets[user + 1]))
            sums[user_items[of_user]] += item_values[cell] * user_values[of_user]
        sums[j] = 0
        norms = row_norms[j] * column_norms + shrinkage if shrinkage else row_norms[j]
        similar = (sums / norms).astype(np.float32)
        order = np.argsort(-np.abs(similar), kind="stable")[: columns.shape[1]]
        order = order[similar[order] != 0]
        counts[j] = len(order)
        columns[j, : len(order)], values[j, : len(order)] = order, similar[order]
