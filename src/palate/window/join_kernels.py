"""The loops that sort what came into a window's events and take old ones out, which `machine_code.compiled` makes fast.

Arrays and codes are those of `kernels.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.window.kernels import FIRST, MOST, Records

STRIDE = 32
"""Codes that are counted at once."""


class Content(NamedTuple):
    """The arrays of `sorting.Sorted` that `join` reads."""

    pairs: NDArray[np.int64]
    events: NDArray[np.int64]
    columns: NDArray[np.int32]
    times: NDArray[np.uint32]
    codes: NDArray[np.uint8]
    values: NDArray[np.uint16]


class Room(NamedTuple):
    """Where `join` writes to: pairs that are new or have changed, and the events of these."""

    columns: NDArray[np.int32]
    times: NDArray[np.uint32]
    codes: NDArray[np.uint8]
    values: NDArray[np.uint16]


def join(
    rows: NDArray[np.int64],
    old: Content,
    moved: NDArray[np.int32],
    records: Records,
    earliest: int,
    room: Room,
    stays: NDArray[np.int64],
    pair_counts: NDArray[np.int64],
    event_counts: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Find what stays of some users' pairs, and write the others as they are with the events from `earliest` on, in the order
    (user, item, log).

    `rows` are the users' rows in the old arrays, −1 for who is new; `moved` is the new column of each old one, in the same order.
    `records` are sorted by the user's place in `rows` and the new column. Of one pair the old events come first. Each row of
    `stays` is a span of pairs that stay: its first pair and the one after its last, likewise events, and how many pairs and
    events were written before it. Returns how many spans, pairs and events that makes; the counts are those of each user.
    """
    # what is taken out of a tuple in a loop is counted each time, by all threads in the same place
    old_columns, old_times, old_codes, old_values = old.columns, old.times, old.codes, old.values
    old_pairs, old_events = old.pairs, old.events
    columns, times, codes, values = room
    n, p, e, spans = 0, 0, 0, 0
    for u in range(len(rows)):
        before_pairs, before_events, row = p, e, rows[u]
        key, above = np.uint64(u) << np.uint64(32), np.uint64(u + 1) << np.uint64(32)
        pair, last = (old_pairs[row], old_pairs[row + 1]) if row >= 0 else (0, 0)
        place, end = (old_events[row], old_events[row + 1]) if row >= 0 else (0, 0)
        leaves = place - 1  # the next event that does, as far as it has been looked for
        while True:
            coming = records[n, 0] if n < len(records) else MOST
            if pair < last:
                stop, first, begin = _first_from(coming, key, moved, old_columns, pair, last), pair, place
                if leaves < place:
                    leaves = _first_before(old_times, place, end, earliest)
                if leaves < end:
                    stop = min(stop, pair + _begun(old_codes, place + 1, leaves + 1))
                place = end if stop == last else _ahead(old_codes, place, end, stop - pair)
                pair = stop
                before_pairs, before_events = before_pairs - (pair - first), before_events - (place - begin)
                spans = _stay(stays, spans, first, pair, begin, place, p, e)
            what = key | np.uint64(moved[old_columns[pair]]) if pair < last else above
            before = e
            if what <= coming and pair == last:
                break
            if what <= coming:
                place, e = _kept(old_times, old_codes, old_values, place, end, earliest, times, codes, values, e)
                pair += 1
            if e > before:
                columns[p], p = moved[old_columns[pair - 1]], p + 1
            if coming <= what and coming < above:
                if e == before:
                    columns[p], p = coming & np.uint64(0xFFFFFFFF), p + 1
                n, e = _come(records, n, e == before, times, codes, values, e)
        pair_counts[u], event_counts[u] = p - before_pairs, e - before_events
    return spans, p, e


def _stay(stays: NDArray[np.int64], spans: int, first: int, pair: int, begin: int, place: int, p: int, e: int) -> int:
    """Note that the pairs from `first` to before `pair` stay, with the events from `begin` to before `place`; return how many
    spans there are then: one goes on when it is followed by its neighbour, with nothing between."""
    if first == pair:
        return spans
    if spans and stays[spans - 1, 1] == first and stays[spans - 1, 4] == p and stays[spans - 1, 5] == e:
        stays[spans - 1, 1], stays[spans - 1, 3] = pair, place
        return spans
    stays[spans, 0], stays[spans, 1], stays[spans, 2], stays[spans, 3] = first, pair, begin, place
    stays[spans, 4], stays[spans, 5] = p, e
    return spans + 1


def shift(array: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64], goals: NDArray[np.int64]) -> None:
    """Move what is from `starts[n]` to before `ends[n]` to `goals[n]` on, for all n. Spans and goals ascend, and neither overlap
    among themselves; so those that move down never meet those that move up, and each way there is an order in which nothing is
    overwritten before it has moved."""
    for n in range(len(starts)):
        if goals[n] < starts[n]:
            source, target = array[starts[n] : ends[n]], array[goals[n] : goals[n] + ends[n] - starts[n]]
            for place in range(len(source)):
                target[place] = source[place]
    for n in range(len(starts) - 1, -1, -1):
        if goals[n] > starts[n]:
            source, target = array[starts[n] : ends[n]], array[goals[n] : goals[n] + ends[n] - starts[n]]
            for place in range(len(source) - 1, -1, -1):
                target[place] = source[place]


def _first_from(
    coming: np.uint64,
    key: np.uint64,
    moved: NDArray[np.int32],
    columns: NDArray[np.int32],
    pair: int,
    last: int,
) -> int:
    """The first pair of a user that isn't before the record that comes next."""
    below, above = pair, last
    while below < above:
        middle = (below + above) // 2
        if key | np.uint64(moved[columns[middle]]) < coming:
            below = middle + 1
        else:
            above = middle
    return below


def _first_before(times: NDArray[np.uint32], place: int, end: int, earliest: int) -> int:
    """The first event from `place` on that is before `earliest`; `end` if there is none."""
    bound = np.uint32(earliest)
    while place < end:
        following, before = min(place + STRIDE, end), np.uint32(0)
        for time in times[place:following]:
            before += np.uint32(time < bound)
        if before:
            break
        place = following
    while place < end and times[place] >= bound:
        place += 1
    return place


def _begun(codes: NDArray[np.uint8], first: int, last: int) -> int:
    """How many pairs begin with one of these events."""
    begun = np.int64(0)
    for code in codes[first:last]:
        begun += code >> 7
    return int(begun)


def _ahead(codes: NDArray[np.uint8], place: int, end: int, pairs: int) -> int:
    """Where so many pairs later begin than the one that begins at `place`."""
    while place + STRIDE < end:
        begun = _begun(codes, place + 1, place + 1 + STRIDE)
        if begun >= pairs:
            break
        pairs, place = pairs - begun, place + STRIDE
    while pairs > 0:
        place += 1
        pairs -= codes[place] >> 7
    return place


def _kept(
    old_times: NDArray[np.uint32],
    old_codes: NDArray[np.uint8],
    old_values: NDArray[np.uint16],
    place: int,
    end: int,
    earliest: int,
    times: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint16],
    e: int,
) -> tuple[int, int]:
    """Write those events of the pair that begins at `place` that are from `earliest` on; return where the next pair begins, and
    how many are written then."""
    start, first = FIRST, place
    while place == first or (place < end and old_codes[place] < FIRST):
        if old_times[place] >= earliest:
            times[e], values[e] = old_times[place], old_values[place]
            codes[e] = (old_codes[place] & (FIRST - 1)) | start
            e, start = e + 1, 0
        place += 1
    return place, e


def _come(
    records: Records,
    n: int,
    begins: bool,
    times: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint16],
    e: int,
) -> tuple[int, int]:
    """Write the records of the pair of record n, which `begins` with them; return how many are read and written then."""
    pair, start = records[n, 0], FIRST if begins else 0
    while n < len(records) and records[n, 0] == pair:
        rest = records[n, 1]
        times[e], values[e] = rest >> np.uint64(32), (rest >> np.uint64(16)) & np.uint64(0xFFFF)
        codes[e] = (rest & np.uint64(FIRST - 1)) | np.uint64(start)
        n, e, start = n + 1, e + 1, 0
    return n, e


def spans(
    first: int,
    last: int,
    pairs: NDArray[np.int64],
    events: NDArray[np.int64],
    codes: NDArray[np.uint8],
    places: NDArray[np.int64],
    firsts: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> None:
    """Where the events of the pairs `places` begin and end; those of user u are from `firsts[u]` on."""
    for u in range(first, last):
        pair, place, end = pairs[u], events[u], events[u + 1]
        alone = end - place == pairs[u + 1] - pair  # each pair has one event
        for n in range(firsts[u], firsts[u + 1]):
            if alone:
                starts[n] = place + places[n] - pair
                ends[n] = starts[n] + 1
                continue
            place = _ahead(codes, place, end, places[n] - pair)
            starts[n], pair = place, places[n]
            place += 1
            while place < end and codes[place] < FIRST:
                place += 1
            ends[n], pair = place, pair + 1


def pick(
    first: int,
    last: int,
    places: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    old: tuple[NDArray[np.int32], NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint16]],
    goals: NDArray[np.int64],
    new: tuple[NDArray[np.int32], NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint16]],
) -> None:
    """Copy the columns, times, codes and values of the pairs at `places`, the events of pair n to `goals[n]`."""
    old_columns, old_times, old_codes, old_values = old
    columns, times, codes, values = new
    for n in range(first, last):
        columns[n] = old_columns[places[n]]
        e = goals[n]
        for event in range(starts[n], ends[n]):
            times[e], codes[e], values[e] = old_times[event], old_codes[event], old_values[event]
            e += 1
