"""Stories: documents that belong together, found for all at one time or as they come, with the same result.

Similar pairs → companies of what hangs together by them → divided into stories. What a story is depends on the documents of its
company and on nothing else, neither on other documents nor on the order of arrival. So when a document comes, goes or expires,
the companies that gain or lose one are divided anew, and no others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palate.stories import company, neighbours, room
from palate.stories.agglomeration import divide
from palate.stories.company import Levels, Moved
from palate.stories.neighbours import NO_PAIRS, ClusteringParams, Documents, Pairs, Placed
from palate.stories.regrouping import FEW, NOBODY, regrouped
from palate.stories.room import Room

_MANY = 0.02
"""Share of the documents from which on those that come are too many to look at what each of them joins."""


@dataclass(frozen=True)
class Stories:
    """Documents, each with its story: those found at one time in order of time (then key), then the others as they came."""

    params: ClusteringParams
    documents: Placed
    labels: NDArray[np.int64]
    """The key of the first document of its story."""
    groups: NDArray[np.int64]
    """The key of the first of those with whom it would be a story if all were of sources of their own."""
    pairs: Pairs = NO_PAIRS
    levels: Levels = ()
    """What each hangs together with. None where nothing can join any more (`picked`)."""
    rooms: tuple[Room | None, Room | None] = (None, None)
    """Where documents and pairs lie."""

    def __len__(self) -> int:
        return len(self.documents)


def cluster(documents: Documents, params: ClusteringParams) -> Stories:
    """All documents divided into stories. Time and memory are about linear in their number for a given number a day."""
    placed = neighbours.place(documents)
    pairs = neighbours.near(placed, np.ones(len(placed), np.bool_), params)
    levels = company.found(len(placed), pairs, params)
    nobody = np.full(len(placed), NOBODY, np.int32)
    none = Stories(params, placed, placed.keys, placed.keys, pairs, levels)
    return _divided(none, np.arange(len(placed)), None, nobody)


def joined(stories: Stories, documents: Documents) -> Stories:
    """The stories with these documents too, as if all had come at one time. A known key's document takes the old one's place."""
    stories = removed(stories, documents.keys)
    count, params = len(stories), stories.params
    new = neighbours.place(documents)
    together, of_documents = neighbours.extended(stories.documents, new, stories.rooms[0])
    found = neighbours.near_newest(together, count, params)
    columns, of_pairs = room.extended(stories.pairs, found, stories.rooms[1])
    pairs = Pairs(*columns)
    if len(new) > _MANY * count:
        moved = Moved(company.found(len(together), pairs, params), np.arange(len(together)))
    else:
        moved = company.grown(stories.levels, stories.pairs, found, len(together), params)
    was = np.append(stories.levels[-1], np.full(len(new), -1, np.int32))
    rows = company.changed(stories.levels[-1], was, moved)
    labels = np.concatenate((stories.labels, new.keys))
    groups = np.append(stories.groups, np.full(len(new), NOBODY))
    after = Stories(params, together, labels, groups, pairs, moved.levels, (of_documents, of_pairs))
    return _divided(after, rows, stories, was)


def removed(stories: Stories, keys: NDArray[np.int64]) -> Stories:
    """The stories without these documents, as if they had never been; keys that aren't there are ignored."""
    leaves = np.isin(stories.documents.keys, keys)
    if not leaves.any():
        return stories
    stays = ~leaves
    rows = np.cumsum(stays) - 1
    kept = neighbours.chosen(stories.pairs, stays[stories.pairs.first] & stays[stories.pairs.second])
    pairs = kept._replace(first=rows[kept.first], second=rows[kept.second])
    moved = company.without(stories.levels, stays, pairs, stories.params)
    documents, labels = stories.documents[stays], stories.labels[stays]
    was = stories.levels[-1][stays]
    changed = company.changed(stories.levels[-1], was, moved)
    after = Stories(stories.params, documents, labels, stories.groups[stays], pairs, moved.levels)
    return _divided(after, changed, stories, was)


def expired(stories: Stories, before: int) -> Stories:
    """The stories without the documents of before that time, in milliseconds since 1970."""
    return removed(stories, stories.documents.keys[stories.documents.times < before])


def picked(stories: Stories, rows: NDArray[np.int64]) -> Stories:
    """Whole stories by themselves, in order of time, for who looks at documents and labels alone."""
    rows = neighbours.in_order(stories.documents, rows)
    return Stories(stories.params, stories.documents[rows], stories.labels[rows], stories.groups[rows])


def _divided(after: Stories, rows: NDArray[np.int64], before: Stories | None, was: NDArray[np.int32]) -> Stories:
    """With the documents at `rows`, which are whole companies, divided.

    `was`: for each document the name of its company before. `after` has the labels and groups of before.
    """
    documents, params, labels, groups = after.documents, after.params, after.labels.copy(), after.groups.copy()
    rows = neighbours.in_order(documents, rows)
    names = after.levels[-1][rows]
    order = np.argsort(names, kind="stable")
    edges = np.flatnonzero(np.diff(names[order], prepend=-1, append=-1))
    for start, end in pairwise(edges.tolist()):
        for first in range(start, end, params.largest):  # more are texts that are all the same
            members = rows[order[first : min(first + params.largest, end)]]
            known = _known(after.groups[members], was[members], before if end - start <= params.largest else None)
            heads, joint = _heads(documents, members, known, params)
            labels[members], groups[members] = documents.keys[members[heads]], documents.keys[members[joint]]
    return replace(after, labels=labels, groups=groups)


def _known(groups: NDArray[np.int64], was: NDArray[np.int32], before: Stories | None) -> NDArray[np.int64]:
    """The groups of a company's documents that are still whole and were found among each other; NOBODY for all others."""
    there = was[was != NOBODY]
    if before is None or len(groups) <= FEW or not len(there):
        return np.full(len(groups), NOBODY)
    largest = np.bincount(there).argmax()  # of the companies from which they come
    if np.count_nonzero(before.levels[-1] == largest) > before.params.largest:
        return np.full(len(groups), NOBODY)
    names, counts = np.unique(groups[was == largest], return_counts=True)
    asked = before.groups[np.isin(before.groups, names)]
    whole = names[counts == np.unique(asked, return_counts=True)[1]]
    return np.where((was == largest) & np.isin(groups, whole), groups, NOBODY)


def _heads(
    documents: Placed, members: NDArray[np.int64], known: NDArray[np.int64], params: ClusteringParams
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each member of a company the places of the first of its story, and of the first of its group."""
    if len(members) <= 2:
        alone = np.zeros(len(members), np.int64)  # a similar pair is a story
        return alone, alone
    own = documents[members]
    groups = regrouped(own, known, params)
    return divide(own, groups, params), groups
