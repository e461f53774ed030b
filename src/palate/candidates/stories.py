"""One item of each story: which of them may be served to a person, and which is the one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.candidates.filters import Mask
from palate.live import History
from palate.pool import Pool

HEADLINE = 1000.0
"""By so much the headline is ahead of its story's other items for somebody new."""


def without(pool: Pool, mask: Mask, keys: NDArray[np.int64]) -> Mask:
    """The mask without any item of the stories that these items belong to."""
    return _without(pool, mask, _numbers(pool, keys))


def of(pool: Pool, keys: NDArray[np.int64]) -> Mask:
    """(n,) the items of stories that these items belong to."""
    everything = np.ones(len(pool), np.bool_)
    return everything & ~without(pool, everything, keys)


def refused(pool: Pool, history: History) -> NDArray[np.int64]:
    """Keys of the items by which the person has said no to a story: of several votes on one story the newest counts.

    What was viewed or rated low has a weight above 0, and what was hidden with its source has no label: no to neither.
    """
    said = history.of_items(history.voted)
    refused = (said.labels < 0.5) & (said.weights <= 0)
    return said.items[refused & _last_of_story(pool, said.items)] if refused.any() else said.items[:0]


def one_verdict(pool: Pool, votes: History) -> History:
    """Of several votes on items of one story the newest alone: a story counts once."""
    return votes.of_items(_last_of_story(pool, votes.items))


def one_of_each(pool: Pool, mask: Mask, values: NDArray[np.float32], new: bool) -> Mask:
    """The mask with one item of each story: the one of the highest value (n,), for somebody new the headline before all others.

    Of equals the newest.
    """
    stories = pool.stories
    if not len(stories):
        return mask
    inside = mask[stories.rows]
    worth = np.where(inside, values[stories.rows], -np.inf)
    if new:
        worth = worth + HEADLINE * pool.leads[stories.rows]
    best = np.flatnonzero(inside & (worth == np.maximum.reduceat(worth, stories.starts)[stories.numbers]))
    last = best[np.append(np.diff(stories.numbers[best]) != 0, np.True_)] if len(best) else best
    mask = mask.copy()
    mask[stories.rows] = False
    mask[stories.rows[last]] = True
    return mask


def _numbers(pool: Pool, keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Numbers of the stories of those of the items that have one."""
    if not len(pool.stories):
        return pool.stories.numbers
    rows = pool.rows(keys)
    numbers = pool.stories.of_row[rows[rows >= 0]]
    return numbers[numbers >= 0]


def _without(pool: Pool, mask: Mask, numbers: NDArray[np.int32]) -> Mask:
    if not len(numbers):
        return mask
    named = np.zeros(len(pool.stories), np.bool_)
    named[numbers] = True
    mask = mask.copy()
    mask[pool.stories.rows[named[pool.stories.numbers]]] = False
    return mask


def _last_of_story(pool: Pool, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) false for items after which another of their story follows."""
    if not len(pool.stories):
        return np.ones(len(keys), np.bool_)
    rows = pool.rows(keys)
    numbers = np.where(rows >= 0, pool.stories.of_row[rows], -1)
    kept = numbers < 0
    _, back = np.unique(numbers[::-1], return_index=True)
    kept[len(keys) - 1 - back] = True
    return kept
