"""The items of the greatest inner products with each of many people: lists for everybody at once.

Products are made block by block by BLAS, and each block is looked through while it lies in the cache: no matrix of all scores is
ever there. Items are taken in order of falling length, so that a person is done as soon as no later product can reach their list,
by the inequality of Cauchy and Schwarz: exact, and most of the work is left out where lengths differ (Teflioudi, Gemulla and
Mykytiuk, "LEMP: Fast Retrieval of Large Entries in a Matrix Product", 2015).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.matrix import Sparse

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]

PEOPLE = 256
"""In one block of products."""
ITEMS = 512
"""In one block: with so many people half a megabyte of products, which stays in the cache until it is looked through."""
STRIDE = 32
"""Products that are compared before any of them is looked at alone."""
SLACK = 1 + 1e-4
"""By how much a product may exceed the product of the lengths, for rounding."""
ALIVE = 0.75
"""With less than this share of a block's people left the others are taken out of it."""


@dataclass(frozen=True, eq=False)
class Tops:
    """The best items of n people, best first; of equal scores the item of the lower row is better."""

    rows: Rows
    """(n, limit): of the items, −1 where there are no more."""
    scores: Floats
    """(n, limit): −inf where there are no more."""


@dataclass(frozen=True, eq=False)
class _Items:
    """The items in order of falling length."""

    vectors: Floats
    rows: Rows
    """(m,) which row each of them is."""
    lengths: Floats


def best(people: Floats, items: Floats, limit: int, seen: Sparse, threads: int | None = None) -> Tops:
    """Of each of the people (n, F) the `limit` items (m, F) of the greatest products, without those of `seen` (n, m).

    Products that aren't finite are left out. `threads` None: one a core; their number changes nothing.
    """
    assert seen.width == len(items), "Seen is of these items."
    lengths = np.linalg.norm(items, axis=1)
    order = np.argsort(-lengths, kind="stable")
    ordered = _Items(np.ascontiguousarray(items[order]), order.astype(np.int32), lengths[order])
    place = np.empty(len(items), np.int32)
    place[order] = np.arange(len(items), dtype=np.int32)
    tops = Tops(np.full((len(people), limit), -1, np.int32), np.full((len(people), limit), -np.inf, np.float32))
    if limit and len(items):
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            blocks = range(0, len(people), PEOPLE)
            jobs = [pool.submit(_block, slice(at, at + PEOPLE), people, ordered, seen, place, tops) for at in blocks]
            for job in jobs:
                job.result()
    return tops


def best_readable(people: Floats, items: Floats, limit: int, seen: Sparse) -> Tops:
    """What `best` gives, in NumPy and one person after the other."""
    rows = np.full((len(people), limit), -1, np.int32)
    scores = np.full((len(people), limit), -np.inf, np.float32)
    for person, vector in enumerate(people):
        products = items @ vector
        products[seen.row(person)[0]] = -np.inf
        order = np.lexsort((np.arange(len(items)), -products))
        order = order[np.isfinite(products[order])][:limit]
        rows[person, : len(order)], scores[person, : len(order)] = order, products[order]
    return Tops(rows, scores)


def best_of_scores(scores: Floats, limit: int, seen: Sparse) -> Tops:
    """The same of scores (n, m) that are there, in which those of `seen` become −inf: for models that are no product."""
    rows = np.repeat(np.arange(len(scores)), seen.counts)
    scores[rows, seen.columns] = -np.inf
    tops = Tops(np.full((len(scores), limit), -1, np.int32), np.full((len(scores), limit), -np.inf, np.float32))
    everybody, nothing = np.arange(len(scores)), np.zeros(0, np.int32)
    numbers = np.arange(scores.shape[1], dtype=np.int32)
    cursors = np.zeros((2, len(scores)), np.int64)
    sizes = np.zeros(len(scores), np.int64)
    compiled(
        _scan, np.ascontiguousarray(scores), 0, numbers, everybody, nothing, cursors, tops.scores, tops.rows, sizes
    )
    compiled(_order, tops.scores, tops.rows, sizes)
    return tops


def _block(which: slice, people: Floats, items: _Items, seen: Sparse, place: Rows, tops: Tops) -> None:
    """The lists of one block of people."""
    vectors = np.ascontiguousarray(people[which], np.float32)
    starts = seen.offsets[which.start : which.start + len(vectors) + 1]
    met = place[seen.columns[starts[0] : starts[-1]]]
    cursors = np.stack((starts[:-1], starts[1:])) - starts[0]
    compiled(_sort_rows, met, cursors)
    scores, rows, sizes = tops.scores[which], tops.rows[which], np.zeros(len(vectors), np.int64)
    lengths, alive = np.linalg.norm(vectors, axis=1) * np.float32(SLACK), np.arange(len(vectors))
    room = np.empty(
        len(vectors) * ITEMS, np.float32
    )  # once: fresh pages for each block would take as long as the products
    for first in range(0, len(items.rows), ITEMS):
        hopeful = lengths[alive] * items.lengths[first] >= scores[alive, 0]
        if not hopeful.any():
            break
        if hopeful.sum() < ALIVE * len(alive):
            alive, vectors = alive[hopeful], np.ascontiguousarray(vectors[hopeful])
        part = slice(first, first + ITEMS)
        others = items.vectors[part]
        products = room[: len(vectors) * len(others)].reshape(len(vectors), len(others))
        np.matmul(vectors, others.T, out=products)
        compiled(_scan, products, first, items.rows[part], alive, met, cursors, scores, rows, sizes)
    compiled(_order, scores, rows, sizes)


# --- machine code ---------------------------------------------------------------------------------------------------------


def _sort_rows(met: Rows, cursors: NDArray[np.int64]) -> None:
    for person in range(cursors.shape[1]):
        met[cursors[0, person] : cursors[1, person]].sort()


def _scan(
    products: Floats,
    first: int,
    rows_of: Rows,
    alive: NDArray[np.int64],
    met: Rows,
    cursors: NDArray[np.int64],
    scores: Floats,
    rows: Rows,
    sizes: NDArray[np.int64],
) -> None:
    """Take into each person's heap what of these products belongs there; its root is the worst.

    `first` is the place of the first of them among all items, `met` are places, ascending from `cursors[0]` to `cursors[1]`.
    """
    width, limit = products.shape[1], scores.shape[1]
    for row in range(len(alive)):
        person = alive[row]
        at = cursors[0, person]
        while at < cursors[1, person] and met[at] < first + width:
            if met[at] >= first:
                products[row, met[at] - first] = -np.inf
            at += 1
        cursors[0, person] = at
        for start in range(0, width, STRIDE):
            few, least, hits = products[row, start : start + STRIDE], scores[person, 0], np.int32(0)
            for column in range(len(few)):
                hits += np.int32(few[column] >= least)
            if hits:
                for column in range(len(few)):
                    score = few[column]
                    if score >= scores[person, 0] and -np.inf < score < np.inf:
                        row_of = rows_of[start + column]
                        sizes[person] = _taken(scores[person], rows[person], sizes[person], limit, score, row_of)


def _taken(scores: Floats, rows: Rows, size: int, limit: int, score: np.float32, row: np.int32) -> int:
    """The heap's size after this one came. While the heap isn't full its free places are −inf, at its root as well."""
    if size == limit:
        if not (score > scores[0] or (score == scores[0] and row < rows[0])):
            return size
        _sink(scores, rows, limit, score, row)
        return size
    scores[limit - 1 - size] = score
    rows[limit - 1 - size] = row
    if size + 1 == limit:
        for start in range(limit // 2 - 1, -1, -1):
            _settle(scores, rows, start, limit, scores[start], rows[start])
    return size + 1


def _sink(scores: Floats, rows: Rows, size: int, score: np.float32, row: np.int32) -> None:
    _settle(scores, rows, 0, size, score, row)


def _settle(scores: Floats, rows: Rows, start: int, size: int, score: np.float32, row: np.int32) -> None:
    """Put this one at `start` of the heap of so many, or below, where its place is."""
    place = start
    child = 2 * place + 1
    while child < size:
        other = child + 1
        if other < size and (
            scores[other] < scores[child] or (scores[other] == scores[child] and rows[other] > rows[child])
        ):
            child = other
        if not (scores[child] < score or (scores[child] == score and rows[child] > row)):
            break
        scores[place], rows[place] = scores[child], rows[child]
        place = child
        child = 2 * place + 1
    scores[place], rows[place] = score, row


def _order(scores: Floats, rows: Rows, sizes: NDArray[np.int64]) -> None:
    """Heaps to lists, best first."""
    limit = scores.shape[1]
    for person in range(len(sizes)):
        own, at, size = scores[person], rows[person], sizes[person]
        if size < limit:  # it never became a heap: what came lies at the end, the last in front
            for place in range(size):
                own[place], at[place] = own[limit - size + place], at[limit - size + place]
            for place in range(size, limit):
                own[place], at[place] = -np.inf, -1
            for start in range(size // 2 - 1, -1, -1):
                _settle(own, at, start, size, own[start], at[start])
        for end in range(size - 1, 0, -1):
            score, row = own[end], at[end]
            own[end], at[end] = own[0], at[0]
            _settle(own, at, 0, end, score, row)
