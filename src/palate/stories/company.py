"""What documents hang together with by pairs that are similar enough, level by level, until every company is small enough.

At the lowest level two hang together if a chain of similar pairs leads from one to the other. A company of more than `largest`
documents is looked at again at the next level, where pairs must be a little more similar, and so on. What a company is depends on
the pairs between its documents alone, so a document that comes touches the companies of those that it is near to, level by level,
and no others.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.stories import neighbours
from palate.stories.neighbours import SCALE, ClusteringParams, Pairs

_STEP = 0.02
"""By so much the least similarity rises from level to level."""

Names = NDArray[np.int32]
Rows = NDArray[np.int64]
Levels = tuple[Names, ...]
"""Of each level the name of each document's company: the row of one that belongs to it. A company that is small enough keeps its
name at the levels above. At the last one all are, except for texts that are all the same."""


class Moved(NamedTuple):
    """The levels after documents came or went."""

    levels: Levels
    touched: Rows
    """Whoever is in no company with one of these at the last level is in the same company as before."""


def found(count: int, pairs: Pairs, params: ClusteringParams) -> Levels:
    """The levels of documents with these pairs."""
    names = connected(count, pairs)
    levels = [names]
    for least in _least(params)[1:]:
        large = np.bincount(names, minlength=count)[names] > params.largest
        if not large.any():
            break
        pairs = neighbours.chosen(pairs, large[pairs.first] & (pairs.products >= least))
        names = np.where(large, connected(count, pairs), names)
        levels.append(names)
    return tuple(levels)


def grown(levels: Levels, known: Pairs, new: Pairs, count: int, params: ClusteringParams) -> Moved:
    """The levels with documents that come behind the others, `count` in all.

    `known`: pairs of the others, `new`: those with who comes.

    At each level the companies that new pairs lead between are one. If that is small enough, it is so at all levels above. If it
    isn't, those that were small enough before have never been looked at above: they are, by the pairs between them.
    """
    before, result = len(levels[0]), list[Names]()
    touched = opened = np.arange(before, count)  # who alone was small enough, and isn't any more
    settled = opened  # who has no other company above than here, but for those who are opened
    inside, among = np.zeros(count, np.bool_), neighbours.NO_PAIRS
    for least, old in zip_longest(_least(params), levels):
        if least is None or (old is None and not len(opened)):
            break
        names = result[-1].copy() if old is None else np.append(old, np.arange(before, count, dtype=np.int32))
        if result:
            names[settled] = result[-1][settled]
            older = opened[opened < before]
            if not inside[older].all():
                inside[older] = True
                among = _within(known, inside)
            names[opened] = opened
            _open(names, older, neighbours.chosen(among, among.products >= least))
        opened, small = _joined(names, neighbours.chosen(new, new.products >= least), params.largest)
        touched, settled = np.concatenate((touched, opened)), np.concatenate((settled, opened, small))
        result.append(names)
    return Moved(tuple(result), np.unique(touched))


def without(levels: Levels, stays: NDArray[np.bool_], pairs: Pairs, params: ClusteringParams) -> Moved:
    """The levels of those that stay. `pairs`: theirs, by their rows among themselves."""
    rows = np.cumsum(stays, dtype=np.int32) - 1
    lost = np.isin(levels[0], levels[0][~stays])[stays]
    touched, places = np.flatnonzero(lost), np.cumsum(lost) - 1
    own = neighbours.chosen(pairs, lost[pairs.first])
    anew = found(len(touched), own._replace(first=places[own.first], second=places[own.second]), params)
    result = []
    for level in range(max(len(levels), len(anew))):
        names = rows[_at(levels, level)[stays]]
        names[touched] = touched[_at(anew, level)]
        result.append(names)
    return Moved(tuple(result), touched)


def changed(before: Names, was: Names, moved: Moved) -> Rows:
    """Rows of all whose company at the last level has gained or lost a document.

    `before`: the names before, of all that were there; `was`: of those that are there now, −1 for who came.
    """
    names = moved.levels[-1]
    rows = np.flatnonzero(np.isin(names, names[moved.touched]))
    own, head = was[rows], was[names[rows]]  # a company is named after one that belongs to it
    _, places, sizes = np.unique(names[rows], return_inverse=True, return_counts=True)
    differs = (own != head) | (own < 0) | (_sizes(before, own) != sizes[places])
    return rows[np.isin(names[rows], names[rows[differs]])]


def _sizes(names: Names, asked: Names) -> NDArray[np.int64]:
    """How often each of those that are asked for stands in the names."""
    wanted, places = np.unique(asked, return_inverse=True)
    there, counts = np.unique(names[np.isin(names, wanted)], return_counts=True)
    sizes = np.zeros(len(wanted), np.int64)
    sizes[np.isin(wanted, there)] = counts
    return sizes[places]


def _at(levels: Levels, level: int) -> Names:
    return levels[min(level, len(levels) - 1)]


def _least(params: ClusteringParams) -> list[float]:
    """Of each level the similarity × SCALE² from which on pairs count."""
    levels = [params.similarity]
    while levels[-1] < 1:
        levels.append(min(1.0, levels[-1] + _STEP))
    return [level * SCALE**2 for level in levels]


def _within(pairs: Pairs, inside: NDArray[np.bool_]) -> Pairs:
    own = neighbours.chosen(pairs, inside[pairs.first])
    return neighbours.chosen(own, inside[own.second])


def _open(names: Names, opened: Rows, pairs: Pairs) -> None:
    """Look at these documents at a level at which they have never been looked at. In place."""
    if not len(opened):
        return
    places = np.full(len(names), -1)
    places[opened] = np.arange(len(opened))
    own = _within(pairs, places >= 0)
    names[opened] = opened[connected(len(opened), own._replace(first=places[own.first], second=places[own.second]))]


def _joined(names: Names, new: Pairs, largest: int) -> tuple[Rows, Rows]:
    """Join in place what these pairs lead between.

    Returns the rows of all whose company was small enough before and isn't now, and of those whose joined company is.
    """
    opened, small = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    ends, places = np.unique(np.concatenate((names[new.first], names[new.second])), return_inverse=True)
    half = len(places) // 2
    together = connected(len(ends), Pairs(places[:half], places[half:], new.products))
    for head in np.unique(together).tolist():
        parts = [np.flatnonzero(names == end) for end in ends[together == head].tolist()]
        if len(parts) == 1:
            continue
        if sum(map(len, parts)) > largest:
            opened += [part for part in parts if len(part) <= largest]
        else:
            small += parts
        for part in parts:
            names[part] = ends[head]
    return np.concatenate(opened), np.concatenate(small)


def connected(count: int, pairs: Pairs) -> Names:
    """For each document the first row of all that it hangs together with: labels run along the pairs until none changes."""
    roots = np.arange(count, dtype=np.int32)
    first, second = pairs.first, pairs.second
    while True:
        one, other = roots[first], roots[second]
        different = one != other
        if not different.any():
            return roots
        first, second = first[different], second[different]
        low = np.minimum(one[different], other[different])
        np.minimum.at(roots, one[different], low)
        np.minimum.at(roots, other[different], low)
        while (roots[roots] != roots).any():
            roots = roots[roots]
