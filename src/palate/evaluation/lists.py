"""What lists are like beside being right: new, varied, wide, like what people walked away from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models.material import Known
from palate.vocabulary import Vocabulary, vocabulary

CELLS = 2**20
"""Numbers in a block of people by features."""

HARDLY_WATCHED = 0.25
"""A positive of less weight than this, such as a film of which they saw less than that part, was walked away from."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of each of I items before anybody is asked."""

    popularity: Values
    """(I,) share of the people in the training who took to it; of items that nobody did, that of half a person."""
    features: Sparse
    """(I, F) rows of length 1: their inner product is the cosine of two items."""


def by_behaviour(train: Interactions, items: Vocabulary) -> Catalogue:
    """Items are alike when the same people took to them: the cosine of the sets of these people."""
    positive = train.weight > 0
    users = vocabulary(train.user)
    row, column = items.rows(train.item[positive]), users.rows(train.user[positive])
    kept = row >= 0
    cells = matrix.sparse(
        row[kept], column[kept], np.ones(int(kept.sum()), np.float32), (len(items), max(len(users), 1))
    )
    return Catalogue(np.maximum(cells.counts, 0.5) / max(len(users), 1), _unit(cells))


def by_content(train: Interactions, items: Vocabulary, words: Mapping[int, Sequence[str]]) -> Catalogue:
    """Items are alike when they share words (labels, a source): the cosine of the sets of these. `words` by item key."""
    own = [sorted(set(words.get(key, ()))) for key in items.keys.tolist()]
    names = {name: number for number, name in enumerate(sorted({name for some in own for name in some}))}
    row = np.repeat(np.arange(len(own)), [len(some) for some in own])
    column = np.array([names[name] for some in own for name in some], np.int64)
    cells = matrix.sparse(row, column, np.ones(len(row), np.float32), (len(items), max(len(names), 1)))
    return Catalogue(by_behaviour(train, items).popularity, _unit(cells))


def novelty(lists: NDArray[np.int32], catalogue: Catalogue) -> Values:
    """Mean of −log2 of the popularity of each list's items, in bits; NaN of an empty list."""
    return _mean(-np.log2(catalogue.popularity)[lists], lists >= 0)


def popularity_bias(lists: NDArray[np.int32], known: Known, catalogue: Catalogue) -> Values:
    """Mean popularity of the list over that of what the person took to before: 1 leaves them where they were.

    NaN for a person of whom nothing is known.
    """
    taken = known.weights.values > 0
    owner = np.repeat(np.arange(len(lists)), known.weights.counts)[taken]
    sums = np.bincount(owner, catalogue.popularity[known.weights.columns[taken]], minlength=len(lists))
    counts = np.bincount(owner, minlength=len(lists))
    of_list = _mean(catalogue.popularity[lists], lists >= 0)
    return np.where(counts > 0, of_list * counts / np.where(counts > 0, sums, 1), np.nan)


def diversity(lists: NDArray[np.int32], catalogue: Catalogue) -> Values:
    """1 − the mean cosine of the pairs of items in each list; NaN of a list of fewer than two.

    The cosines of all pairs are what the square of the sum of the vectors has beyond the vectors' own squares.
    """
    found = [np.empty(0)]
    for some in _chunks(len(lists), catalogue.features.width):
        part = lists[some]
        own = matrix.taken(catalogue.features, part.ravel().astype(np.int64))
        sums = _sums(own, part.shape)
        squares = np.bincount(_owner(own, part.shape), own.values.astype(np.float64) ** 2, minlength=len(part))
        sizes = (part >= 0).sum(axis=1)
        pairs = sizes * (sizes - 1)
        cosines = (sums**2).sum(axis=1) - squares
        found.append(np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), np.nan))
    return np.concatenate(found)


def like_abandoned(lists: NDArray[np.int32], known: Known, catalogue: Catalogue) -> Values:
    """Share of each list that is nearer to what the person walked away from than to what they took to.

    Nearer is a larger mean cosine. Walked away from: refused or disliked (weight below 0, label below ½), or a weight above 0
    but below `HARDLY_WATCHED`. NaN for a person of whom none or nothing else is known.
    """
    signs, weights = _signs(known), known.weights
    found = [np.empty(0)]
    for some in _chunks(len(lists), catalogue.features.width):
        rows = np.arange(some.start, some.stop)
        cells, sign = matrix.taken(weights, rows), signs[weights.offsets[some.start] : weights.offsets[some.stop]]
        own = matrix.taken(catalogue.features, cells.columns.astype(np.int64))
        person = np.repeat(np.arange(len(rows)), cells.counts)
        left, liked = (np.bincount(person, sign == value, minlength=len(rows)) for value in (-1, 1))
        pull = np.where(sign < 0, 1 / np.maximum(left, 1)[person], 0) - np.where(
            sign > 0, 1 / np.maximum(liked, 1)[person], 0
        )
        taste = np.bincount(
            np.repeat(person, own.counts) * own.width + own.columns,
            np.repeat(pull, own.counts) * own.values,
            minlength=len(rows) * own.width,
        )
        part = lists[some]
        near = matrix.taken(catalogue.features, part.ravel().astype(np.int64))
        cell = np.repeat(np.arange(part.size), near.counts)
        score = np.bincount(
            cell, taste[cell // part.shape[1] * near.width + near.columns] * near.values, minlength=part.size
        ).reshape(part.shape)
        found.append(np.where((left > 0) & (liked > 0), _mean(score > 1e-9, part >= 0), np.nan))
    return np.concatenate(found)


def _signs(known: Known) -> NDArray[np.int8]:
    """Of each cell of the weights: 1 what they took to, −1 what they walked away from, 0 neither."""
    weights, labels = known.weights, known.labels
    codes = (np.repeat(np.arange(len(part)), part.counts) * part.width + part.columns for part in (weights, labels))
    of_weights, of_labels = codes
    disliked = np.isin(of_weights, of_labels[labels.values < 0.5])
    left = (weights.values < 0) | disliked | ((weights.values > 0) & (weights.values < HARDLY_WATCHED))
    return np.where(left, -1, np.where(weights.values > 0, 1, 0)).astype(np.int8)


def _unit(cells: Sparse) -> Sparse:
    """Rows of ones as rows of length 1."""
    values = np.repeat(1 / np.sqrt(np.maximum(cells.counts, 1)), cells.counts).astype(np.float32)
    return Sparse(cells.offsets, cells.columns, values, cells.width)


def _mean(values: NDArray[Any], there: NDArray[np.bool_]) -> Values:
    counts = there.sum(axis=1)
    return np.asarray(np.where(counts > 0, np.where(there, values, 0).sum(axis=1) / np.maximum(counts, 1), np.nan))


def _owner(own: Sparse, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Of each cell of the items of some lists, the list."""
    return np.repeat(np.arange(shape[0] * shape[1]), own.counts) // shape[1]


def _sums(own: Sparse, shape: tuple[int, ...]) -> Values:
    """(lists, F) the sum of the items' rows of each list."""
    owner = _owner(own, shape)
    code = owner * own.width + own.columns
    flat: Values = np.bincount(code, own.values.astype(np.float64), shape[0] * own.width).astype(np.float64)
    return flat.reshape(shape[0], own.width)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, CELLS // max(width, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
