"""What every model is fitted on, and what is known of the people whom it is asked about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from palate import matrix, splits
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models.content import ContentParams, Contents
from palate.models.factorization_machine import NO_SOURCES, ItemSources
from palate.models.fields import Field
from palate.vocabulary import Vocabulary, vocabulary


@dataclass(frozen=True, eq=False)
class Material:
    """What a fit may learn. A fitted model has a row for each of `items`, also for those that no interaction is of."""

    interactions: Interactions
    users: Vocabulary
    items: Vocabulary
    now: datetime
    item_sources: ItemSources = NO_SOURCES
    fields: tuple[Field, ...] = ()
    """What else is known of users, items and events, beside what `contents` say, for models that can learn from it."""
    contents: Contents | None = None
    """Of each item, for models that place items by it; None where nothing is known."""
    content: ContentParams = field(default_factory=ContentParams)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of n people when they are asked about: of those in the fit as well as of those who are new."""

    users: NDArray[np.int64]
    """(n,) keys."""
    weights: Sparse
    """(n, I): strength of each positive; below 0 for what they refused. A cell of 0 was met without either."""
    labels: Sparse
    """(n, I): only the pairs that have a label, 0..1."""
    newer: Sparse | None = None
    """(n, I): the cells of `weights`, with how many of the person's items that are evidence came after; None where that isn't
    known, and all count alike."""

    def of(self, rows: NDArray[np.int64]) -> Known:
        """What is known of the people of these rows, in this order."""
        newer = None if self.newer is None else matrix.taken(self.newer, rows)
        return Known(self.users[rows], matrix.taken(self.weights, rows), matrix.taken(self.labels, rows), newer)


def faded(known: Known, recent_items: float | None) -> Sparse:
    """The weights, each of which counts half for every so many items of the person that are newer; None: all count alike."""
    if recent_items is None or known.newer is None:
        return known.weights
    fading = np.exp2(-known.newer.values / np.float32(recent_items))
    return replace(known.weights, values=(known.weights.values * fading).astype(np.float32))


def material(interactions: Interactions, now: datetime, item_sources: ItemSources = NO_SOURCES) -> Material:
    """The interactions with the vocabularies that they themselves have."""
    users, items = vocabulary(interactions.user), vocabulary(interactions.item)
    return Material(interactions, users, items, now, item_sources)


def known(interactions: Interactions, users: NDArray[np.int64], items: Vocabulary) -> Known:
    """What the interactions say of these people (keys in any order) and these items."""
    rows = Vocabulary(np.unique(users))
    order = rows.rows(users)
    own = splits.rows(interactions, rows.rows(interactions.user) >= 0)
    weights, labels, newer = (
        matrix.of_interactions(own, values, rows, items) for values in (own.weight, own.label, _newer(own))
    )
    return Known(users, weights, labels, newer).of(order)


def _newer(interactions: Interactions) -> NDArray[np.float32]:
    """How many items of the same person that are evidence are newer than each; NaN where there is no weight.

    Without times all are of one age, and none is newer.
    """
    evidence = np.flatnonzero((interactions.weight != 0) & ~np.isnan(interactions.weight))
    order = evidence[np.lexsort((interactions.time[evidence], interactions.user[evidence]))]
    user, time = interactions.user[order], interactions.time[order]
    of_user = user[1:] != user[:-1]
    newer = _ends(of_user) - _ends(of_user | (time[1:] != time[:-1]))
    result = np.where(np.isnan(interactions.weight), np.float32(np.nan), np.float32(0))
    result[order] = newer
    return result


def _ends(cuts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) where the run of each place ends: `cuts` (n − 1,) tells whether the next place begins another."""
    ends = np.append(np.flatnonzero(cuts) + 1, len(cuts) + 1)
    return ends[np.searchsorted(ends, np.arange(len(cuts) + 1), side="right")]
