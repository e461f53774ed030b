"""The loops of `pairs.py` over very many pairs; each says the same as the NumPy beside which it is called there.

Every one takes the users `first` to `last` − 1, the pairs of user u being `offsets[u]` to `offsets[u + 1]` − 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Offsets = NDArray[np.int64]

DAY = 86_400
"""Seconds."""

NONE = np.uint64(2**64 - 1)
"""Above what stands for any pair's time and place."""

STEP = 240
"""Seconds in which a fading evidence is looked up: a power for each pair would take the longest of all. See `popularity.STEP`."""


class Fading(NamedTuple):
    """What is left of an example by its second: the product of what is left of the step of `STEP` seconds that it falls into and
    of what passes within that step; never more than 1.
    """

    first: int
    """Number of the step that the first place of `coarse` is for, and all before it."""
    coarse: NDArray[np.float64]
    """(steps,): what is left at the start of each; the last is for all after it."""
    pace: NDArray[np.int32]
    """(steps,): the row of `fine` for each."""
    fine: NDArray[np.float64]
    """(paces, STEP): what a second more leaves of the past."""


def labelled(first: int, last: int, offsets: Offsets, labels: NDArray[np.float32], people: Mask, found: Mask) -> None:
    """Mark the pairs of these people that have a label, and no others."""
    for u in range(first, last):
        for p in range(offsets[u], offsets[u + 1]):
            found[p] = people[u] and labels[p] == labels[p]


def count(first: int, last: int, offsets: Offsets, which: Mask, counts: NDArray[np.int64]) -> None:
    """How many pairs of each user are among `which`."""
    for u in range(first, last):
        found = 0
        for p in range(offsets[u], offsets[u + 1]):
            found += which[p]
        counts[u] = found


def total(
    first: int,
    last: int,
    offsets: Offsets,
    labels: NDArray[np.float32],
    which: Mask,
    sums: NDArray[np.float64],
) -> None:
    """The sum of these pairs' labels and their number."""
    found, number = 0.0, 0
    for p in range(offsets[first], offsets[last]):
        if which[p]:
            found += labels[p]
            number += 1
    sums[0] += found
    sums[1] += number


def draw(
    first: int,
    last: int,
    offsets: Offsets,
    which: Mask,
    starts: Offsets,
    ranks: NDArray[np.int64],
    drawn: NDArray[np.int64],
) -> None:
    """Write where those of `which` are whose number among them is in `ranks` (ascending); `starts` (U + 1,) is each user's first
    number."""
    place = np.searchsorted(ranks, starts[first])
    for u in range(first, last):
        number = starts[u]
        if place == len(ranks) or ranks[place] >= starts[u + 1]:
            continue
        for p in range(offsets[u], offsets[u + 1]):
            if which[p]:
                if place < len(ranks) and ranks[place] == number:
                    drawn[place] = p
                    place += 1
                number += 1


def take(
    first: int,
    last: int,
    offsets: Offsets,
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    which: Mask,
    starts: Offsets,
    taken_columns: NDArray[np.int32],
    taken_values: NDArray[np.float32],
) -> None:
    """Copy the column and the value of those of `which`, those of user u from `starts[u]` on."""
    for u in range(first, last):
        place = starts[u]
        if starts[u + 1] > place:
            for p in range(offsets[u], offsets[u + 1]):
                if which[p]:
                    taken_columns[place], taken_values[place] = columns[p], values[p]
                    place += 1


def late(
    first: int,
    last: int,
    offsets: Offsets,
    times: NDArray[np.uint32],
    all_: Mask,
    asked: NDArray[np.int64],
    starts: Offsets,
    found: Mask,
) -> None:
    """Mark which of the places `asked` belong to the later half (rounded down) of their user's pairs among `all_`; those of user
    u begin at `starts[u]`."""
    keys = np.empty(0, np.uint64)
    for u in range(first, last):
        begin, end, start, lowest = starts[u], starts[u + 1], offsets[u], NONE
        if begin == end:
            continue
        for n in range(begin, end):
            lowest = min(lowest, _moment(times, asked[n], start))
        size, earlier = np.int64(0), np.int64(0)
        for p in range(start, offsets[u + 1]):
            size += all_[p]
            earlier += all_[p] & (_moment(times, p, start) < lowest)
        half, middle = (size + 1) // 2, lowest
        if size < 2:
            continue
        if earlier < half:  # hardly ever: what is new is what is asked about
            if len(keys) < size:
                keys = np.empty(2 * size, np.uint64)
            n = 0
            for p in range(start, offsets[u + 1]):
                if all_[p]:
                    keys[n] = _moment(times, p, start)
                    n += 1
            middle = np.partition(keys[:size], half)[half]
        for n in range(begin, end):
            found[n] = _moment(times, asked[n], start) >= middle


def _moment(times: NDArray[np.uint32], p: int, start: int) -> np.uint64:
    """What orders the pairs of a user that begin at `start`: by time, then by place."""
    return (np.uint64(times[p]) << np.uint64(32)) | np.uint64(p - start)


def newest(
    first: int,
    last: int,
    offsets: Offsets,
    times: NDArray[np.uint32],
    columns: NDArray[np.int32],
    labels: NDArray[np.float32],
    weights: NDArray[np.float32],
    starts: Offsets,
    taken_columns: NDArray[np.int32],
    taken_labels: NDArray[np.float32],
    taken_weights: NDArray[np.float32],
) -> None:
    """Copy each user's newest pairs, oldest first, as many as there is room for from `starts[u]` to `starts[u + 1]`.

    `starts` and the arrays that are written to begin at the user `first`; so do `weights`, at that one's first pair.
    """
    keys, base = np.empty(0, np.uint64), offsets[first]
    for u in range(first, last):
        size, room = offsets[u + 1] - offsets[u], starts[u - first + 1] - starts[u - first]
        if room == 0:
            continue
        if len(keys) < size:
            keys = np.empty(2 * size, np.uint64)
        own, ordered = keys[:size], True
        for n in range(size):
            own[n] = _moment(times, offsets[u] + n, offsets[u])
            ordered &= n == 0 or own[n - 1] < own[n]
        if not ordered:
            own.sort()
        place = starts[u - first] - starts[0]
        for n in range(size - room, size):
            p = offsets[u] + np.int64(own[n] & np.uint64(0xFFFFFFFF))
            taken_columns[place], taken_labels[place] = columns[p], labels[p]
            taken_weights[place] = weights[p - base]
            place += 1


def by_day(
    first: int,
    last: int,
    offsets: Offsets,
    times: NDArray[np.uint32],
    labels: NDArray[np.float32],
    weights: NDArray[np.float32],
    which: Mask,
    earliest: int,
    counts: NDArray[np.int64],
) -> None:
    """Count the pairs of each day that say something, of `which` and not before the second `earliest`."""
    for p in range(offsets[first], offsets[last]):
        if which[p] and times[p] >= earliest and (labels[p] == labels[p] or weights[p] != 0):
            counts[times[p] // DAY] += 1


def by_item(
    first: int,
    last: int,
    offsets: Offsets,
    columns: NDArray[np.int32],
    times: NDArray[np.uint32],
    labels: NDArray[np.float32],
    weights: NDArray[np.float32],
    which: Mask,
    after: int,
    to: int,
    earliest: int,
    fading: Fading,
    sums: NDArray[np.float64],
) -> None:
    """Add up what pairs of `which` later than the second `after` and not later than `to` say of each item; decayed sums and
    labels are of those from `earliest` on.

    The columns of `sums` are those of `popularity.Tally`: labels decayed, their sum decayed, weights decayed, labels, their
    sum, that of their squares, and weights above 0; and the labels above ½, so that an item is a line of the processor's cache.
    """
    step_one, coarse, pace, fine = fading
    for p in range(offsets[first], offsets[last]):
        if which[p] and after < times[p] <= to:
            label, weight, row = np.float64(labels[p]), np.float64(weights[p]), columns[p]
            if weight > 0:
                sums[row, 6] += weight
            if times[p] >= earliest:
                fade = _left(step_one, coarse, pace, fine, np.int64(times[p]))
                sums[row, 2] += fade * weight
                if label == label:
                    sums[row, 0] += fade
                    sums[row, 1] += fade * label
                    sums[row, 3] += 1
                    sums[row, 4] += label
                    sums[row, 5] += label * label
                    sums[row, 7] += label > 0.5


def _left(
    first: int,
    coarse: NDArray[np.float64],
    pace: NDArray[np.int32],
    fine: NDArray[np.float64],
    time: np.int64,
) -> np.float64:
    """How much is left of what happened in this second; see `Fading`."""
    step = min(max(int(time) // STEP - first, 0), len(coarse) - 1)
    return np.float64(min(coarse[step] * fine[pace[step], int(time % STEP)], 1.0))
