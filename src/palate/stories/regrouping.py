"""Groups of a company that has gained or lost documents, from those that it had: the same as if all were agglomerated anew.

How a group came to be depends on its own documents alone as long as nothing else comes close enough to join with a part of it.
So only the groups that something new comes close to are agglomerated anew together with it; if what they pass through on their
way comes close to further groups, these too, until nothing does.

What comes close is a group that is passed through now and wasn't before, or is left later than it was, and whose mean similarity
with some document outside would let them join. A mean with several documents is never higher than that with one of them, so
without such a document it never joins with anything outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.stories.agglomeration import Join, agglomerate, heads_of
from palate.stories.neighbours import SCALE, ClusteringParams, Placed, products_of

FEW = 300
"""Documents up to which it is as fast to agglomerate all anew."""
_MOST = 0.3
"""Share of the documents from which on it is so, too."""

NOBODY = -1


class _Left(NamedTuple):
    """When a group was left, which is when it joined another."""

    mean: float
    joined: int
    """The documents of both, a bit each."""


_STAYS = _Left(-np.inf, 0)


def regrouped(documents: Placed, known: NDArray[np.int64], params: ClusteringParams) -> NDArray[np.int64]:
    """For each document the row of the first of its group, as `agglomerate` has it.

    `known`: names of the groups that these documents made among themselves before others came or went, of whole ones alone;
    NOBODY for who is in none.
    """
    inside = (known == NOBODY) | (len(documents) <= FEW)
    before: dict[int, _Left] = {}
    while True:
        if np.count_nonzero(inside) > _MOST * len(documents):
            return heads_of(len(documents), agglomerate(documents, params))
        rows = np.flatnonzero(inside)
        joins = agglomerate(documents[rows], params)
        close = _close(documents, rows, joins, before, params) & ~inside
        if not close.any():
            return _heads(known, rows, heads_of(len(rows), joins))
        for name in np.unique(known[close]).tolist():
            own = np.flatnonzero(known == name)
            passed = _passed(own, agglomerate(documents[own], params), np.zeros((len(own), 0)))
            before |= {group: left for group, left, _ in passed}
            inside[own] = True


def _close(
    documents: Placed, rows: NDArray[np.int64], joins: list[Join], before: dict[int, _Left], params: ClusteringParams
) -> NDArray[np.bool_]:
    """(n,) which documents something that these pass through is close to."""
    products = products_of(documents.codes[rows], documents.codes).astype(np.float64)
    close = np.zeros(len(documents), np.bool_)
    for group, left, sums in _passed(rows, joins, products):
        was = before.get(group)
        if was is None or not (was == _STAYS or left == was or left.mean > was.mean):
            close |= sums >= params.similarity * SCALE**2 * group.bit_count()
    return close


def _passed(
    rows: NDArray[np.int64], joins: list[Join], products: NDArray[np.float64]
) -> Iterator[tuple[int, _Left, NDArray[np.float64]]]:
    """Every group on the way, single documents among them: its documents' bits, how it was left, the sum of their products."""
    groups = {place: (1 << row, products[place]) for place, row in enumerate(rows.tolist())}
    for head, joining, mean in joins:
        (one, sums), (other, more) = groups[head], groups.pop(joining)
        left = _Left(mean, one | other)
        yield one, left, sums
        yield other, left, more
        groups[head] = one | other, sums + more
    for bits, sums in groups.values():
        yield bits, _STAYS, sums


def _heads(known: NDArray[np.int64], rows: NDArray[np.int64], anew: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, places = np.unique(known, return_index=True, return_inverse=True)
    heads = first[places]
    heads[rows] = rows[anew]
    return heads
