"""Cutting what happened into what is learned from and what is asked for.

The functions of columns give a mask of the rows that are asked for; a row is one event, or one pair of user and item.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions

Mask = NDArray[np.bool_]
Keys = NDArray[np.int64]


def by_time(interactions: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """What came before a moment, and the newest `share` (0..1) of all.

    Nothing in the first part is as late as anything in the second: what happened in the same millisecond as the cut is in
    the second, which can so be a little larger than asked for.
    """
    late = newest(interactions.time, share)
    return rows(interactions, ~late), rows(interactions, late)


def newest(time: Keys, share: float) -> Mask:
    """The newest `share` (0..1) of all rows, and whatever is of the same millisecond as its oldest."""
    assert 0 <= share <= 1, "A share lies between 0 and 1."
    count = round(len(time) * share)
    if not count:
        return np.zeros(len(time), bool)
    late: Mask = time >= np.partition(time, len(time) - count)[len(time) - count]
    return late


def newest_of_each(user: Keys, time: Keys, share: float) -> Mask:
    """The newest `share` (0..1) of each user's rows, rounded, and whatever of theirs is of the same millisecond as its oldest."""
    assert 0 <= share <= 1, "A share lies between 0 and 1."
    order = np.lexsort((time, user))
    starts, counts = _runs(user[order])
    late = np.round(counts * share).astype(np.int64)
    first = order[np.minimum(starts + counts - late, len(order) - 1)]  # the oldest that is asked for, if any is
    cut = np.where(late > 0, time[first], np.iinfo(np.int64).max)
    mask = np.zeros(len(user), bool)
    mask[order] = time[order] >= np.repeat(cut, counts)
    return mask


def last_of_each(user: Keys, time: Keys) -> Mask:
    """The newest row of each user who has more than one; of several of one millisecond the last row."""
    order = np.lexsort((time, user))
    starts, counts = _runs(user[order])
    mask = np.zeros(len(user), bool)
    mask[order[(starts + counts - 1)[counts > 1]]] = True
    return mask


def ties_of_last(user: Keys, time: Keys) -> int:
    """How many users have several newest rows of one millisecond, so that `last_of_each` goes by the order of rows."""
    order = np.lexsort((time, user))
    starts, counts = _runs(user[order])
    last = starts + counts - 1
    before = np.maximum(last - 1, 0)
    return int(((counts > 1) & (time[order[last]] == time[order[before]])).sum())


def at_random(n: int, share: float, random: np.random.Generator) -> Mask:
    """A `share` (0..1) of n rows, rounded, by chance."""
    assert 0 <= share <= 1, "A share lies between 0 and 1."
    mask = np.zeros(n, bool)
    mask[random.permutation(n)[: round(n * share)]] = True
    return mask


def share_of_each(user: Keys, share: float, random: np.random.Generator) -> Mask:
    """A `share` (0..1) of each user's rows, rounded, by chance; at least one of each who has two, and never all of them."""
    order = np.lexsort((random.random(len(user)), user))
    starts, counts = _runs(user[order])
    wanted = np.clip(np.round(counts * share), np.minimum(counts - 1, 1), counts - 1)
    place = np.arange(len(user)) - np.repeat(starts, counts)
    mask = np.zeros(len(user), bool)
    mask[order] = place < np.repeat(wanted, counts)
    return mask


def k_fold(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0 … folds − 1) of each of n rows, by chance; sizes differ by one at most."""
    assert folds >= 2, "With one fold there is nothing to learn from."
    return np.random.default_rng(seed).permutation(n) % folds


def rows(interactions: Interactions, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Interactions:
    """The chosen rows (a mask, or row numbers in ascending order)."""
    fields = {field.name: getattr(interactions, field.name) for field in dataclasses.fields(interactions)}
    return Interactions(**{name: values[chosen] for name, values in fields.items()})


def _runs(ordered: Keys) -> tuple[Keys, Keys]:
    """Where each run of equal values begins, and how long it is."""
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    return starts, np.diff(np.append(starts, len(ordered)))
