"""What lists are like beside being right: new, varied, wide, like what people walked away from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models.material import Known
from palate.vocabulary import Vocabulary, vocabulary

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
    there = lists >= 0
    owner = np.repeat(np.arange(len(lists)), there.sum(axis=1))
    together = np.where(there, _pulls(catalogue, owner, lists[there], np.ones(len(owner)), lists), 0).sum(axis=1)
    own = np.where(there, np.append(catalogue.features.counts > 0, False)[lists], 0).sum(axis=1)
    pairs = there.sum(axis=1) * (there.sum(axis=1) - 1)
    return np.where(pairs > 0, 1 - (together - own) / np.maximum(pairs, 1), np.nan)


def like_abandoned(lists: NDArray[np.int32], known: Known, catalogue: Catalogue) -> Values:
    """Share of each list that is nearer to what the person walked away from than to what they took to.

    Nearer is a larger mean cosine. Walked away from: refused or disliked (weight below 0, label below ½), or a weight above 0
    but below `HARDLY_WATCHED`. NaN for a person of whom none or nothing else is known.
    """
    signs = _signs(known)
    owner = np.repeat(np.arange(len(lists)), known.weights.counts)
    left, liked = (np.bincount(owner, signs == sign, len(lists)) for sign in (-1, 1))
    share = np.where(signs < 0, 1 / np.maximum(left, 1)[owner], -1 / np.maximum(liked, 1)[owner])
    chosen = signs != 0
    pulls = _pulls(catalogue, owner[chosen], known.weights.columns[chosen], share[chosen], lists)
    return np.where((left > 0) & (liked > 0), _mean(pulls > 1e-6, lists >= 0), np.nan)


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


def _pulls(
    catalogue: Catalogue,
    owner: NDArray[np.int64],
    items: NDArray[np.int32],
    weights: Values,
    lists: NDArray[np.int32],
) -> Values:
    """(n, k) for each place of each person's list the sum of its cosines with their items, weighted; 0 where it is empty.

    `owner` (ascending), `items` and `weights` are of one length: whose item it is, which, and how much it counts.
    """
    found = np.zeros(lists.shape)
    offsets = np.searchsorted(owner, np.arange(len(lists) + 1))
    features = catalogue.features
    cells = features.offsets, features.columns, features.values, features.width
    compiled(_loops, *cells, offsets, items, weights, lists, found)
    return found


def _readable(
    offsets: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    width: int,
    own: NDArray[np.int64],
    items: NDArray[np.int32],
    weights: Values,
    lists: NDArray[np.int32],
    found: Values,
) -> None:
    """What `_pulls` says, with all items as dense vectors."""
    vectors = np.zeros((len(offsets) - 1, width))
    vectors[np.repeat(np.arange(len(vectors)), np.diff(offsets)), columns] = values
    for person, places in enumerate(lists):
        mine = slice(own[person], own[person + 1])
        taste = weights[mine] @ vectors[items[mine]]
        found[person] = np.where(places >= 0, vectors[places] @ taste, 0)


def _loops(
    offsets: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    width: int,
    own: NDArray[np.int64],
    items: NDArray[np.int32],
    weights: Values,
    lists: NDArray[np.int32],
    found: Values,
) -> None:
    """What is compiled: `_readable` over the cells that aren't zero."""
    taste = np.zeros(width)
    for person in range(len(lists)):
        for n in range(own[person], own[person + 1]):
            for cell in range(offsets[items[n]], offsets[items[n] + 1]):
                taste[columns[cell]] += weights[n] * values[cell]
        for place in range(lists.shape[1]):
            item = lists[person, place]
            if item < 0:
                continue
            total = 0.0
            for cell in range(offsets[item], offsets[item + 1]):
                total += taste[columns[cell]] * values[cell]
            found[person, place] = total
        for n in range(own[person], own[person + 1]):
            for cell in range(offsets[items[n]], offsets[items[n] + 1]):
                taste[columns[cell]] = 0
