"""Documents that hang together, divided into stories: agglomeration by the mean similarity between groups.

Groups that are most similar on average join first (Sokal and Michener, "A statistical method for evaluating systematic
relationships", 1958, "group average"), so one document between two events doesn't chain them together as with single links. Of
each source the document that is closest to its story stays in it; the others are divided among themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.stories.neighbours import SCALE, ClusteringParams, Placed, products_of


@dataclass(frozen=True)
class _Groups:
    """A group stands at the row of its first document."""

    sums: NDArray[np.float64]
    """(n, n) of the products between their documents: whole numbers."""
    means: NDArray[np.float64]
    """(n, n) −inf where two mustn't join."""
    alive: NDArray[np.bool_]
    """(n,) which haven't joined another."""
    sizes: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    best: NDArray[np.float64]
    """(n,) the highest mean of each row, and at which row."""
    partner: NDArray[np.int64]


def divide(documents: Placed, groups: NDArray[np.int64], params: ClusteringParams) -> NDArray[np.int64]:
    """For each document the row of the first of its story.

    `groups`: of each the row of the first of its group, whatever their sources. Time and memory grow with the square of the
    number of those who leave their groups.
    """
    heads, rows, names = np.arange(len(documents)), np.arange(len(documents)), groups
    while len(rows):
        stays = np.ones(len(rows), np.bool_)
        for members in _repeating(names, documents.sources[rows]):
            stays[members] = _closest_of_source(documents[rows[members]], params)
        for name in np.unique(names[stays]):
            story = rows[(names == name) & stays]
            heads[story] = story[0]
        rows = rows[~stays]
        names = heads_of(len(rows), agglomerate(documents[rows], params))
    return heads


def _repeating(names: NDArray[np.int64], sources: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The members of each story that has two documents of one source."""
    _, counts = np.unique(np.stack((names, sources)), axis=1, return_counts=True)
    if (counts == 1).all():
        return []
    stories = [np.flatnonzero(names == name) for name in np.unique(names)]
    return [members for members in stories if len(np.unique(sources[members])) < len(members)]


def _closest_of_source(story: Placed, params: ClusteringParams) -> NDArray[np.bool_]:
    """Which documents stay: those closest to the whole first, no two of one source unless they are nearly the same text."""
    products = products_of(story.codes, story.codes)
    stays = np.zeros(len(story), np.bool_)
    for row in np.argsort(-products.sum(axis=1, dtype=np.float64), kind="stable"):
        rivals = stays & (story.sources == story.sources[row])
        stays[row] = (products[row, rivals] >= params.duplicate * SCALE**2).all()
    return stays


class Join(NamedTuple):
    """Of two groups, known by the rows of their first documents."""

    head: int
    joining: int
    """The later one."""
    mean: float


def agglomerate(documents: Placed, params: ClusteringParams) -> list[Join]:
    """What joins, in this order, whatever the sources."""
    if not len(documents):
        return []
    groups, joins = _alone(documents, params), list[Join]()
    while True:
        one = int(groups.best.argmax())
        if groups.best[one] < params.similarity * SCALE**2:
            return joins
        head, joining = sorted((one, int(groups.partner[one])))
        joins.append(Join(head, joining, float(groups.best[one])))
        _join(groups, head, joining, params)


def heads_of(count: int, joins: Iterable[Join]) -> NDArray[np.int64]:
    """For each document the row of the first of its group."""
    heads = np.arange(count)
    for head, joining, _ in joins:
        heads[heads == joining] = head
    return heads


def _alone(documents: Placed, params: ClusteringParams) -> _Groups:
    products = products_of(documents.codes, documents.codes).astype(np.float64)
    times, count = documents.times, len(documents)
    means = np.where(np.abs(times[:, None] - times[None, :]) > params.span, -np.inf, products)
    np.fill_diagonal(means, -np.inf)
    partner = means.argmax(axis=1)
    best = means[np.arange(count), partner]
    return _Groups(products, means, np.ones(count, np.bool_), np.ones(count), times.copy(), times.copy(), best, partner)


def _join(groups: _Groups, head: int, joining: int, params: ClusteringParams) -> None:
    """In place: a group is joined tens of thousands of times."""
    groups.alive[joining] = False
    groups.sums[head] += groups.sums[joining]
    groups.sums[:, head] = groups.sums[head]
    groups.sizes[head] += groups.sizes[joining]
    groups.first[head] = min(groups.first[head], groups.first[joining])
    groups.last[head] = max(groups.last[head], groups.last[joining])
    span = np.maximum(groups.last, groups.last[head]) - np.minimum(groups.first, groups.first[head])
    means = groups.sums[head] / (groups.sizes * groups.sizes[head])
    means[~groups.alive | (span > params.span)] = -np.inf
    means[head] = -np.inf
    groups.means[head] = groups.means[:, head] = means
    groups.means[:, joining] = groups.best[joining] = -np.inf
    _renew_best(groups, head, joining)


def _renew_best(groups: _Groups, head: int, joining: int) -> None:
    towards = groups.means[head]
    better = (towards > groups.best) | ((towards == groups.best) & (head < groups.partner))
    stale = groups.alive & ~better & ((groups.partner == head) | (groups.partner == joining))
    groups.best[better], groups.partner[better] = towards[better], head
    stale[head] = True
    for row in np.flatnonzero(stale).tolist():
        groups.partner[row] = partner = int(groups.means[row].argmax())
        groups.best[row] = groups.means[row, partner]
