"""What a model says of the pool to many people at once: as vectors, where its scores are products, or else as scores.

The order is that of `by_model` and `scoring`, without what a person's own votes say of sources and labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.models import content_scores, implicit_als, registry
from palate.models.factorization_machine import Floats, link
from palate.models.implicit_als import ImplicitALS
from palate.models.material import Known, faded
from palate.pool import Pool
from palate.pool_model import Ranker
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Products:
    """A score is the product of a person's vector and an item's, which orders items alike."""

    items: Floats
    """(n, F): of the pool."""
    people: Callable[[Known], Floats]
    """(p, F)"""
    likely: Callable[[Known, Floats], Floats]
    """From (p, k) products to the probability that a person likes the item."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores that are no products."""

    scores: Callable[[Known, NDArray[np.int64]], Floats]
    """(p, m) of these rows of the pool."""
    likely: Callable[[Known, Floats], Floats]


def ask(pool: Pool, snapshot: Snapshot) -> Products | Scores:
    """How the pool's model scores items for people of the snapshot."""
    ranker = pool.model.ranker
    if ranker is None:
        return _by_columns(pool, snapshot)
    if isinstance(ranker.model, ImplicitALS):
        return _by_vectors(pool, ranker, ranker.model)
    return Scores(lambda known, rows: _log_odds(pool, ranker, known, rows), lambda known, odds: link(odds, "logistic"))


def _by_columns(pool: Pool, snapshot: Snapshot) -> Products:
    """Of `fm` and `popularity`, whose part of a score is in the pool."""
    model, items = pool.model, np.column_stack((pool.vectors, pool.bias)).astype(np.float32)
    if model.name != "fm":
        return Products(
            items[:, -1:], lambda known: np.ones((len(known.users), 1), np.float32), lambda _, scores: scores
        )
    users = Vocabulary(np.asarray(snapshot.arrays["users"]))

    def people(known: Known) -> Floats:
        rows = users.rows(known.users)
        vectors = np.ones((len(rows), items.shape[1]), np.float32)
        vectors[:, :-1] = np.where((rows >= 0)[:, None], snapshot.arrays["user_vectors"][rows], 0)
        return vectors

    def likely(known: Known, products: Floats) -> Floats:
        rows = users.rows(known.users)
        bias = np.where(rows >= 0, np.asarray(snapshot.arrays["user_bias"])[rows], 0)
        return link(np.asarray(products + bias[:, None] + np.float32(model.base), np.float32), model.loss)

    return Products(items, people, likely)


def _by_vectors(pool: Pool, ranker: Ranker, model: ImplicitALS) -> Products:
    """Of `ials`: items that it hasn't learned are mixes of those that it has, by their content."""
    vectors = np.zeros((len(pool), model.item_vectors.shape[1]), np.float32)
    learned, cold = pool.row >= 0, pool.row < 0
    vectors[learned] = model.item_vectors[pool.row[learned]]
    if ranker.content is not None:
        vectors[cold] = content_scores.scored(
            content_scores.told(ranker.content, model.item_vectors), pool.content[cold]
        )
    elif ranker.known.any():
        vectors[cold] = model.item_vectors[ranker.known].mean(axis=0)
    vectors *= np.float32(ranker.slope)

    def likely(_: Known, products: Floats) -> Floats:
        return link(np.asarray(products + np.float32(ranker.intercept), np.float32), "logistic")

    def people(known: Known) -> Floats:
        return implicit_als.fold_in_users(model, faded(known, model.params.recent_items))

    return Products(vectors, people, likely)


def _log_odds(pool: Pool, ranker: Ranker, known: Known, rows: NDArray[np.int64]) -> Floats:
    """(p, m)"""
    slope, intercept = np.float32(ranker.slope), np.float32(ranker.intercept)
    items, explained = registry.entry(pool.model.name).scores(ranker.model, known)
    places = pool.row[rows]
    found = slope * items[:, np.maximum(places, 0)] + intercept
    cold = np.flatnonzero(places < 0)
    if len(cold):
        found[:, cold] = _of_content(slope * explained.T + intercept, ranker, pool.content[rows[cold]]).T
    return np.asarray(found, np.float32)


def _of_content(odds: Floats, ranker: Ranker, content: NDArray[np.float16]) -> Floats:
    """(c, p) from the log-odds (I, p) of all items that the model has a row for."""
    if ranker.content is not None:
        return content_scores.scored(content_scores.told(ranker.content, odds), content)
    learned = odds[ranker.known]
    mean = learned.mean(axis=0) if len(learned) else np.full(odds.shape[1], ranker.intercept, np.float32)
    return np.broadcast_to(mean, (len(content), odds.shape[1]))
