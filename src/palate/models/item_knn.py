"""Item-kNN: who knows these items likes those that the same people knew, by similarities between items.

Sarwar, Karypis, Konstan and Riedl, "Item-Based Collaborative Filtering Recommendation Algorithms" (2001), with the weightings
and the asymmetric cosine that made it a strong baseline: Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms"
(2004); Aiolli, "Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets" (2013); Paudel, Christoffel, Newell
and Bernstein, "Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive Applications" (2016). Powers of
similarities: Breese, Heckerman and Kadie, "Empirical Analysis of Predictive Algorithms for Collaborative Filtering" (1998); Park,
Shin and Shin, "Turbo-CF: Matrix Decomposition-Free Graph Filtering for Fast Recommendation" (2024).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.matrix import Sparse
from palate.models import neighbours
from palate.models.material import Material
from palate.models.neighbours import Neighbours

Weighting = Literal["count", "tfidf", "bm25", "walk"]


class ItemKnnParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How items are compared.

    similarity(i → j) = Σ over users of value(i)·value(j) / (|i|^(2·source_exponent) · |j|^(2·target_exponent) + shrinkage),
    where |i| is the length of the values of item i. Of it, the power `similarity_power` is what i adds to the score of j.
    """

    weighting: Weighting = "walk"
    """What a user's weight counts: `count` itself; `walk` divided by a power of the number of their items; `tfidf` times the
    logarithm of how rare it is that an item is theirs; `bm25` that too, with growing weights and often known items counting ever
    less."""
    user_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    """The power of `walk`: at ½ a user's pairs of items together count as in a random walk; smaller, people of many items count
    more."""
    neighbours: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    """How many items may speak for an item: those most similar to it. Memory of a fit: 8 bytes for each of them and each item."""
    source_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    """How much less an often known item says. Both exponents at ½ make the cosine."""
    target_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.35
    """How much less is said for an often known item: smaller gives more popular lists."""
    similarity_power: Annotated[float, msgspec.Meta(gt=0, le=4)] = 1.0
    """Above 1 the few closest items decide, below 1 many far ones have a say."""
    shrinkage: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Added to the denominator: similarities of items that few users know are smaller."""
    power: Annotated[float, msgspec.Meta(ge=0, le=4)] = 1.0
    """A weight w counts as sign(w)·|w|^power; at 0 every positive counts the same."""
    bm25_k1: Annotated[float, msgspec.Meta(ge=0)] = 1.2
    """Weight at which `bm25` counts half of what it can at most, for an item of mean length."""
    bm25_b: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.75
    """How far `bm25` takes account of how often an item is known."""
    history_limit: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    """Of a person's items the newest so many are learned from: the time of a fit grows with the square."""
    prior: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    """What the most popular item is ahead of one that nobody wants, by popularity alone."""
    recent_items: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """When a person is asked about, an item of theirs counts half for every so many of their items that are newer; none means
    that all count alike."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Cores of a fit; none means all. The result is the same."""


def fit(material: Material, params: ItemKnnParams) -> Neighbours:
    """Compare all items by their users' weights; negative ones subtract: what they refuse is unlike what they like.

    Items that nobody knows, or that no two are known by one person, have no neighbours. Weights that aren't finite are left out.
    The same material and parameters give the same bytes.
    """
    users = neighbours.by_users(material, params.power, params.history_limit)
    weighted = Sparse(users.offsets, users.columns, _values(users, params), users.width)
    items = matrix.transposed(weighted)
    found = neighbours.strongest(
        weighted,
        items,
        _norms(weighted, params.target_exponent),
        _norms(weighted, params.source_exponent),
        params.shrinkage,
        params.neighbours,
        params.threads or os.cpu_count() or 1,
    )
    if params.similarity_power != 1:
        found = replace(found, values=neighbours.powered(found.values, params.similarity_power))
    return Neighbours(
        neighbours.turned(found), neighbours.popularity(users), params.power, params.prior, params.recent_items
    )


def _norms(users: Sparse, exponent: float) -> NDArray[np.float64]:
    """|i|^(2·exponent) of each item; 1 for an item that nobody knows."""
    squares = np.bincount(users.columns, users.values.astype(np.float64) ** 2, minlength=users.width)
    return np.asarray(np.where(squares > 0, squares, 1) ** exponent, np.float64)


def _values(users: Sparse, params: ItemKnnParams) -> NDArray[np.float32]:
    """What each cell counts."""
    if params.weighting == "count":
        return users.values
    of_user = np.repeat(_of_users(users.counts, users.width, params), users.counts)
    values = _saturated(users, params) if params.weighting == "bm25" else users.values
    return np.asarray(values * of_user, np.float32)


def _of_users(counts: NDArray[np.int64], items: int, params: ItemKnnParams) -> NDArray[np.float64]:
    """What the values of each user, who knows so many items, are multiplied by."""
    if params.weighting == "walk":
        return np.maximum(counts, 1) ** -params.user_exponent
    return np.log1p(items / (1 + counts))


def _saturated(users: Sparse, params: ItemKnnParams) -> NDArray[np.float64]:
    """Values that approach k1 + 1 as they grow, the slower the more users an item has.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
    """
    lengths = np.bincount(users.columns, np.abs(users.values), minlength=users.width)
    relative = lengths / max(float(lengths.mean()), 1e-30)
    half = params.bm25_k1 * (1 - params.bm25_b + params.bm25_b * relative)
    return users.values * (params.bm25_k1 + 1) / (half[users.columns] + np.abs(users.values))
