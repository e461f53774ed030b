"""Items in the few directions in which tastes differ most: the greatest singular vectors of who knows what.

A person's items are put into that space and taken out again as scores of all items, so that what few people have in common is
left out: Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation Tasks" (2010), of a matrix
whose rows and columns are divided by powers of their sums, the low-pass filter of Shen et al., "How Powerful is Graph Convolution
for Recommendation?" (2021). Beside item-kNN, which knows who is near, it knows what all have in common.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models import neighbours
from palate.models.material import Known, Material, faded
from palate.models.neighbours import powered

Floats = NDArray[np.float32]

BESIDE = 32
"""Directions beyond the wanted ones that the search goes on with: the last of the wanted ones are found the faster."""

SHARE = 8
"""So many known items there are at least for each direction."""
NOTHING = 1e-6
"""Part of the greatest squared singular value below which one is rounding."""


class SvdParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many directions are kept, and of what matrix."""

    factors: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 128
    """Directions, but no more than an eighth of the items that anybody knows: few items take part in many directions, and say
    of others what chance says."""
    turns: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    """How often the search for them goes through all interactions: each brings it nearer to the greatest."""
    user_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    """The values of a user are divided by this power of the number of their items."""
    item_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    """The values of an item are divided by this power of their sum, and its score is multiplied by it: larger, the space is less
    that of the best known items."""
    power: Annotated[float, msgspec.Meta(ge=0, le=4)] = 1.0
    """A weight w counts as sign(w)·|w|^power; at 0 every positive counts the same."""
    history_limit: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    """Of a person's items the newest so many are learned from."""
    prior: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    """What the most popular item is ahead of one that nobody wants, by popularity alone."""
    recent_items: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """When a person is asked about, an item of theirs counts half for every so many of their items that are newer; none means
    that all count alike."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Cores of a fit; none means all. The result is the same."""


@dataclass(frozen=True, eq=False)
class Svd:
    """A learned model; no function changes its arrays. I items, F directions."""

    vectors: Floats
    """(I, F): orthonormal columns, the first for the greatest singular value."""
    scale: Floats
    """(I,): each item's sum of weights to the `item_exponent`; 1 where nobody knows it."""
    popularity: Floats
    """(I,): the sum of each item's weights over that of the greatest, −1..1."""
    power: float
    """A person's weight w counts as sign(w)·|w|^power, in the fit as in a score."""
    prior: float
    """What a popularity of 1 adds to a score."""
    recent_items: float | None
    """See `material.faded`."""


def fit(material: Material, params: SvdParams, seed: int) -> Svd:
    """Find the directions by subspace iteration (Halko, Martinsson and Tropp, "Finding Structure with Randomness", 2011).

    Weights that aren't finite are left out. The same material, parameters and seed give the same model.
    """
    users = neighbours.by_users(material, params.power, params.history_limit)
    sums = np.bincount(users.columns, np.abs(users.values).astype(np.float64), minlength=users.width)
    scale = np.where(sums > 0, sums, 1) ** params.item_exponent
    of_user = np.repeat(np.maximum(users.counts, 1) ** -params.user_exponent, users.counts)
    values = (users.values * of_user / scale[users.columns]).astype(np.float32)
    cells = Sparse(users.offsets, users.columns, values, users.width)
    factors = min(params.factors, max(int(np.count_nonzero(sums)) // SHARE, 1))
    vectors = greatest(cells, factors, params.turns, seed, params.threads or os.cpu_count() or 1)
    known = neighbours.popularity(users)
    return Svd(vectors, scale.astype(np.float32), known, params.power, params.prior, params.recent_items)


def greatest(cells: Sparse, count: int, turns: int, seed: int, threads: int) -> Floats:
    """(I, at most `count`) the right singular vectors of the greatest values, in falling order; none of a value of 0."""
    wide = min(count + BESIDE, cells.width)
    found = np.random.default_rng(seed).standard_normal((cells.width, wide), np.float32)
    for _ in range(turns):
        found = np.linalg.qr(squared(cells, found, threads))[0].astype(np.float32)
    inside = found.T.astype(np.float64) @ squared(cells, found, threads)
    values, turned = np.linalg.eigh((inside + inside.T) / 2)
    order = np.argsort(-values, kind="stable")[:count]
    order = order[values[order] > NOTHING * values.max(initial=0)]
    return np.ascontiguousarray(found @ turned[:, order].astype(np.float32))


def squared(cells: Sparse, vectors: Floats, threads: int) -> Floats:
    """(I, F): XᵀX times the vectors (I, F), X being the (U, I) cells. Each thread has columns of its own."""
    given = [np.ascontiguousarray(part) for part in np.array_split(vectors, threads, axis=1)]
    sums = [np.zeros_like(part) for part in given]
    with ThreadPoolExecutor(threads) as pool:
        arrays = cells.offsets, cells.columns, cells.values
        jobs = [pool.submit(compiled, _squared, *arrays, *each) for each in zip(given, sums, strict=True)]
        for job in jobs:
            job.result()
    return np.hstack(sums)


def _squared(
    offsets: NDArray[np.int64], columns: NDArray[np.int32], values: Floats, vectors: Floats, sums: Floats
) -> None:
    """Add Σ over rows of row · ⟨row, vectors⟩ to the sums."""
    told = np.empty(vectors.shape[1], np.float32)
    for row in range(len(offsets) - 1):
        told[:] = 0
        for cell in range(offsets[row], offsets[row + 1]):
            for n in range(len(told)):
                told[n] += values[cell] * vectors[columns[cell], n]
        for cell in range(offsets[row], offsets[row + 1]):
            for n in range(len(told)):
                sums[columns[cell], n] += values[cell] * told[n]


def score_all(model: Svd, known: Known) -> Floats:
    """(n, I): for each person their items put into the space and out of it, and a little for popularity."""
    told = faded(known, model.recent_items)
    inside = np.zeros((len(told), model.vectors.shape[1]), np.float32)
    for person, row in enumerate(inside):
        row[:] = _inside(model, *told.row(person))
    return np.asarray(inside @ model.vectors.T * model.scale + np.float32(model.prior) * model.popularity, np.float32)


def _inside(model: Svd, items: NDArray[np.integer[Any]], weights: Floats) -> Floats:
    """(F,): where a person with these items is."""
    values = powered(weights, model.power) / model.scale[items]
    return np.asarray(values @ model.vectors[items], np.float32)


def item_products(model: Svd) -> Floats:
    """(I, F + 1): the vectors whose product with `person_product` is the score."""
    return np.column_stack((model.vectors * model.scale[:, np.newaxis], model.popularity)).astype(np.float32)


def person_product(model: Svd, known: Known) -> Floats:
    """(F + 1,): of one person."""
    inside = _inside(model, *faded(known, model.recent_items).row(0))
    return np.append(inside, np.float32(model.prior))


def score_some(model: Svd, known: Known, rows: NDArray[np.int64]) -> Floats:
    """(w,): the scores of these items for one person."""
    *inside, prior = person_product(model, known)
    products = model.vectors[rows] @ np.array(inside, np.float32)
    return np.asarray(products * model.scale[rows] + prior * model.popularity[rows], np.float32)


def contributions(model: Svd, known: Known, wanted: NDArray[np.integer[Any]]) -> Floats:
    """(w, n): how much each of the n items of one person adds to the score of each of the w wanted ones."""
    items, weights = faded(known, model.recent_items).row(0)
    into = model.vectors[items] * (powered(weights, model.power) / model.scale[items])[:, np.newaxis]
    return np.asarray((model.vectors[wanted] @ into.T) * model.scale[wanted, np.newaxis], np.float32)


def to_arrays(model: Svd) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot, whose `items` are the model's: vectors in half precision change no order beyond noise."""
    return {
        "svd_vectors": model.vectors.astype(np.float16),
        "svd_scale": model.scale,
        "svd_popularity": model.popularity,
    }


def header(model: Svd) -> dict[str, Any]:
    """The numbers beside the arrays."""
    return {"power": model.power, "prior": model.prior, "recent_items": model.recent_items}


def from_arrays(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Svd:
    """The model that a snapshot holds."""
    vectors = arrays["svd_vectors"].astype(np.float32)
    numbers = float(header["power"]), float(header["prior"]), header["recent_items"]
    return Svd(vectors, arrays["svd_scale"], arrays["svd_popularity"], *numbers)
