"""EASE: each item as the best linear combination of the others, in one closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (2019): the B with an empty diagonal that minimises
‖X − XB‖² + l2·‖B‖² is B = I − P / diag(P), where P is the inverse of XᵀX + l2·I.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.matrix import Sparse
from palate.models import neighbours
from palate.models.material import Material
from palate.models.neighbours import Floats, Neighbours, Strongest

BLOCK = 256
"""Columns that the inverse sweeps at once, and rows that are cut down to their greatest at once."""
STRIP = 4
"""Blocks of rows that a sweep updates at once: so many times all columns is what it needs beside the matrix."""


class EaseParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weights between items are found."""

    l2: Annotated[float, msgspec.Meta(gt=0)] = 1000.0
    """How strongly weights are held at zero, in cells: as if so many users with one item had known each item alone."""
    user_exponent: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """What a user's error counts is divided by the number of their items to twice this power: at 0 all cells count the same, at ½
    all users."""
    power: Annotated[float, msgspec.Meta(ge=0, le=4)] = 1.0
    """A weight w counts as sign(w)·|w|^power; at 0 every positive counts the same."""
    max_items: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 12_000
    """The items that most people know take part, so many; others have their popularity alone. Memory: 4 bytes for each pair,
    0.6 GB for 12,000."""
    neighbours: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 500
    """How many weights are kept for an item, the greatest in size."""
    history_limit: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    """Of a person's items the newest so many are learned from."""
    prior: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    """What the most popular item is ahead of one that nobody wants, by popularity alone."""
    recent_items: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """When a person is asked about, an item of theirs counts half for every so many of their items that are newer; none means
    that all count alike."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Cores that count the pairs; none means all. The inverse takes those that NumPy has."""


def fit(material: Material, params: EaseParams) -> Neighbours:
    """Solve for the weights of the best known items and keep the greatest of each.

    Weights that aren't finite are left out. The same material and parameters give the same bytes.
    """
    users = neighbours.by_users(material, params.power, params.history_limit)
    chosen = _best_known(users, params.max_items)
    narrow = _narrowed(users, chosen)
    scale = np.repeat(np.maximum(narrow.counts, 1) ** -params.user_exponent, narrow.counts)
    weighted = Sparse(narrow.offsets, narrow.columns, (narrow.values * scale).astype(np.float32), narrow.width)
    gram = gramian(weighted, params.threads or os.cpu_count() or 1)
    gram[np.diag_indices_from(gram)] += np.float32(params.l2 * _of_a_cell(weighted))
    inverted(gram)
    weights = neighbours.turned(_greatest(gram, params.neighbours))
    wide = _widened(weights, chosen, users.width)
    return Neighbours(wide, neighbours.popularity(users), params.power, params.prior, params.recent_items)


def _best_known(users: Sparse, limit: int) -> NDArray[np.int64]:
    """Columns of the items with most users, ascending; of equal ones the first."""
    counts = np.bincount(users.columns, minlength=users.width)
    known = int((counts > 0).sum())
    return np.sort(np.argsort(-counts, kind="stable")[: min(limit, known)])


def _narrowed(users: Sparse, chosen: NDArray[np.int64]) -> Sparse:
    """With these columns alone."""
    place = np.full(users.width, -1, np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    columns = place[users.columns]
    kept = columns >= 0
    before = np.concatenate(([0], np.cumsum(kept)))
    return Sparse(before[users.offsets], columns[kept], users.values[kept], len(chosen))


def _widened(weights: Sparse, chosen: NDArray[np.int64], items: int) -> Sparse:
    """With a row and a column for every item."""
    counts = np.zeros(items, np.int64)
    counts[chosen] = weights.counts
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return Sparse(offsets, chosen[weights.columns].astype(np.int32), weights.values, items)


def _of_a_cell(users: Sparse) -> float:
    """Mean square of a cell: what l2 is counted in, so that it means the same whatever weights and users count."""
    return float(np.mean(users.values.astype(np.float64) ** 2)) if len(users.values) else 1.0


def gramian(users: Sparse, threads: int) -> Floats:
    """(I, I): XᵀX of the (U, I) cells, each row summed in float64."""
    from palate.models import neighbour_kernels  # here: numba takes half a second and 60 MB, and scoring needs none

    items = matrix.transposed(users)
    result = np.empty((users.width, users.width), np.float32)
    arrays = *neighbours.unsigned(items), *neighbours.unsigned(users), result
    cuts = neighbours.cuts(users, items, threads * neighbours.CHUNKS)
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(neighbour_kernels.gramian, *part, *arrays) for part in itertools.pairwise(cuts)]
        for part in done:
            part.result()
    return result


def inverted(a: Floats, block_size: int = BLOCK) -> None:
    """Put the inverse of a symmetric positive definite matrix in its place.

    By the sweep operator, a block of columns at a time (Goodnight, "A Tutorial on the SWEEP Operator", 1979): the matrix stays
    symmetric, so its upper half is all that is worked on. That is half the time and a third of the memory of `numpy.linalg.inv`.
    """
    strips = list(_strips(len(a), STRIP * block_size))
    for block in _strips(len(a), block_size):
        before, after = slice(0, block.start), slice(block.stop, len(a))
        column = np.concatenate((a[before, block], a[block, block], a[block, after].T))
        pivot = np.linalg.inv(a[block, block].astype(np.float64)).astype(np.float32)
        scaled = column @ pivot
        for strip in strips:
            a[strip, strip.start :] -= scaled[strip] @ column[strip.start :].T
        a[before, block], a[block, after], a[block, block] = scaled[before], scaled[after].T, -pivot
    for strip in strips:
        a[strip, strip.start :] *= -1
        a[strip.stop :, strip] = a[strip, strip.stop :].T
        a[strip, strip] = np.triu(a[strip, strip]) + np.triu(a[strip, strip], 1).T


def _greatest(inverse: Floats, k: int) -> Strongest:
    """For each item the k greatest weights of others in size, from the inverse."""
    items = len(inverse)
    k = max(min(k, items - 1), 1)
    found = Strongest(np.zeros((items, k), np.int32), np.zeros((items, k), np.float32), np.zeros(items, np.int32))
    for strip in _strips(items, BLOCK):
        rows = np.arange(strip.start, strip.stop)
        weights = -inverse[strip] / inverse[rows, rows][:, None]
        weights[rows - strip.start, rows] = 0
        columns = np.sort(np.argpartition(-np.abs(weights), k - 1, axis=1)[:, :k], axis=1)
        found.columns[strip] = columns
        found.values[strip] = np.take_along_axis(weights, columns, axis=1)
        found.counts[strip] = k if items > 1 else 0
    return found


def _strips(n: int, size: int) -> Iterator[slice]:
    """0 … n − 1 in pieces."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))
