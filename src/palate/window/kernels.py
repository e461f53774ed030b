"""The loops of a window, which `machine_code.compiled` makes fast; what they mean together is said by `interactions.merge`.

An event is a record of two numbers of 64 bits: by whom and what it is about (32 bits each), and its time in seconds (32), its
value in half precision (16) and its code (8). Sorted, it is 7 bytes: time, code, value; its item stands once a pair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIRST = 128
"""Bit of a code: the first event of its pair."""

DIGIT = 14
"""Most bits by which one pass sorts: so many places to write to fit into the second cache."""

MOST = np.uint64(2**64 - 1)
"""Above any pair's key."""

DAY = 86_400
DAYS = 2**32 // DAY + 1

Records = NDArray[np.uint64]
Numbers = NDArray[np.float32]


class Rules(NamedTuple):
    """What the events of each code say; every array is (codes,). See `interactions.EventType` for the words."""

    label: Numbers
    """NaN: no vote."""
    label_is_value: NDArray[np.bool_]
    weight: Numbers
    weight_is_value: NDArray[np.bool_]
    sign: NDArray[np.int8]
    sign_is_value: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    viewed: NDArray[np.bool_]
    bit: NDArray[np.uint64]
    """By which retractions name the code; 0 for codes that mean nothing."""
    undoes: NDArray[np.uint64]
    """Bits of what a retraction undoes; 0 for all other codes."""
    acts: NDArray[np.bool_]
    """Whether it counts for `max_events_per_day`."""
    by_value: NDArray[np.bool_]
    """Whether it has to do with the event's value; of the others the next two say what a pair with that event alone is."""
    alone_label: Numbers
    alone_weight: Numbers


def sort(records: Records, spare: Records, shift: int, bits: int) -> None:
    """Order records by `bits` bits of their first number from `shift` on; equal ones stay as they were. `spare` is scratch.

    A radix sort by at most `DIGIT` bits at a time, each pass from one of the two arrays to the other. Beyond these, only bits
    that are 0 everywhere may follow.
    """
    passes = -(-bits // DIGIT)
    digit_bits = -(-bits // max(passes, 1))
    mask = np.uint64((1 << digit_bits) - 1)
    counts = np.empty(1 << digit_bits, np.int64)
    source, target = records, spare
    for turn in range(passes):
        low = np.uint64(shift + turn * digit_bits)
        counts[:] = 0
        for n in range(len(source)):
            counts[(source[n, 0] >> low) & mask] += 1
        place = 0
        for digit in range(len(counts)):
            count = counts[digit]
            counts[digit] = place
            place += count
        for n in range(len(source)):
            bucket = np.int64((source[n, 0] >> low) & mask)
            place = counts[bucket]
            counts[bucket] = place + 1
            target[place, 0] = source[n, 0]
            target[place, 1] = source[n, 1]
        source, target = target, source
    if passes % 2 == 1:
        records[:] = spare


def index(records: Records, starts: NDArray[np.int64], low: int, seen: NDArray[np.bool_]) -> int:
    """Write where each user's records begin (they are by user), mark the items from the key `low` on; return how many users."""
    users, before = 0, np.uint64(0)
    for n in range(len(records)):
        who, what = records[n, 0] >> np.uint64(32), records[n, 0] & np.uint64(0xFFFFFFFF)
        if n == 0 or who != before:
            starts[users] = n
            users += 1
            before = who
        if len(seen):
            seen[np.int64(what) - low] = True
    return users


def take(
    records: Records,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    lowest: int,
    table: NDArray[np.int32],
    earliest: int,
    found: Records,
) -> int:
    """Copy the records of `users` (sorted keys; the records are by user) from `earliest` on, with rows instead of keys.

    `table` has the row of each item key from `lowest` on; where it is empty, `items` (sorted keys) is searched. Returns how many
    they are.
    """
    row, count = 0, 0
    for n in range(len(records)):
        who, what = np.int64(records[n, 0] >> np.uint64(32)), np.int64(records[n, 0] & np.uint64(0xFFFFFFFF))
        while row < len(users) and users[row] < who:
            row += 1
        if row < len(users) and users[row] == who and np.int64(records[n, 1] >> np.uint64(32)) >= earliest:
            item = 0
            if len(table):
                item = int(table[what - lowest])
            else:
                above = len(items)
                while item < above - 1:
                    middle = (item + above) // 2
                    item, above = (middle, above) if items[middle] <= what else (item, middle)
            found[count, 0] = (np.uint64(row) << np.uint64(32)) | np.uint64(item)
            found[count, 1] = records[n, 1]
            count += 1
    return count


def divide(places: NDArray[np.int64], offsets: NDArray[np.int64], firsts: NDArray[np.int64]) -> None:
    """What `np.searchsorted(places, offsets)` gives, both ascending."""
    n = 0
    for u in range(len(offsets)):
        while n < len(places) and places[n] < offsets[u]:
            n += 1
        firsts[u] = n


def meet(first: int, last: int, columns: NDArray[np.int32], present: NDArray[np.bool_]) -> None:
    """Mark the columns that occur from place `first` to `last` − 1."""
    for n in range(first, last):
        if not present[columns[n]]:  # else threads would take the table from one another with each pair
            present[columns[n]] = True


def renumber(first: int, last: int, columns: NDArray[np.int32], rows: NDArray[np.int32]) -> None:
    """Column c becomes `rows[c]`."""
    own = columns[first:last]
    for n in range(len(own)):
        own[n] = rows[np.uint32(own[n])]


def measure(
    first: int,
    last: int,
    events: NDArray[np.int64],
    times: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint16],
    halves: Numbers,
    rated: NDArray[np.bool_],
    acts: NDArray[np.bool_],
    limit: int,
    hyperactive: NDArray[np.bool_],
    low: Numbers,
    high: Numbers,
) -> None:
    """For the users `first` to `last` − 1: more than `limit` acts on one day? and their lowest and highest rating."""
    days = np.zeros(DAYS, np.int64)
    for u in range(first, last):
        for e in range(events[u], events[u + 1]):
            if rated[codes[e] & (FIRST - 1)]:
                value = halves[values[e]]
                low[u] = value if value < low[u] else low[u]
                high[u] = value if value > high[u] else high[u]
        if events[u + 1] - events[u] > limit:
            for e in range(events[u], events[u + 1]):
                if acts[codes[e] & (FIRST - 1)]:
                    days[times[e] // DAY] += 1
                    hyperactive[u] |= days[times[e] // DAY] > limit
            for e in range(events[u], events[u + 1]):
                days[times[e] // DAY] = 0


def label(
    first: int,
    last: int,
    pairs: NDArray[np.int64],
    events: NDArray[np.int64],
    times: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint16],
    halves: Numbers,
    rules: Rules,
    votes: bool,
    lowest: float,
    highest: float,
    labels: Numbers,
    decided: NDArray[np.uint32],
) -> None:
    """The label (P,) of each pair of the users `first` to `last` − 1 by the rule `votes` or else `views`, NaN for none, and the
    time (P,) of the event that decided it or else of the newest.

    Ratings become labels between `lowest` and `highest`; NaN: there are none. A pair's events are read from the newest in the
    log to the oldest, so that what was retracted is known when it comes; of equal times the first one met is the newest.
    """
    # In one piece: a call for each pair, which is handed the rules' arrays, makes it five times as slow.
    nan, zero, one = np.float32(np.nan), np.float32(0), np.float32(1)
    for u in range(first, last):
        start = events[u]
        for p in range(pairs[u], pairs[u + 1]):
            end = start + 1
            while end < events[u + 1] and codes[end] < FIRST:
                end += 1
            code = codes[start] & (FIRST - 1)
            if end == start + 1 and not rules.by_value[code]:  # as nearly all are
                labels[p], decided[p] = rules.alone_label[code], times[start]
                start = end
                continue
            vote, sign, undone = nan, 0, np.uint64(0)
            newest, voted, acted, seen = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1)
            for e in range(end - 1, start - 1, -1):
                code, time = codes[e] & (FIRST - 1), np.int64(times[e])
                newest = max(newest, time)
                undone |= rules.undoes[code]
                if rules.bit[code] == 0 or rules.bit[code] & undone:
                    continue
                rating = _rating(halves[values[e]], lowest, highest)
                says = rating if rules.label_is_value[code] else rules.label[code]
                if says == says and time > voted:
                    vote, voted = says, time
                way = rules.sign[code]
                if rules.sign_is_value[code] and rating == rating:
                    way = 1 if rating >= np.float32(0.5) else -1
                if way != 0 and time > acted:
                    acted, sign = time, way
                if rules.viewed[code]:
                    seen = max(seen, time)
            by = voted if votes else acted if acted >= 0 else seen
            labels[p] = vote if votes else nan if by < 0 else one if sign > 0 else zero
            decided[p] = by if by >= 0 else newest
            start = end


def _rating(value: np.float32, lowest: float, highest: float) -> np.float32:
    """Between 0 and 1; NaN without a value or bounds."""
    base, span = np.float32(lowest), np.float32(highest - lowest)
    if lowest != lowest or value != value:
        return np.float32(np.nan)
    return min(max((value - base) / span, np.float32(0)), np.float32(1)) if span > 0 else np.float32(1)


def weigh(
    first: int,
    last: int,
    pairs: NDArray[np.int64],
    events: NDArray[np.int64],
    times: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint16],
    halves: Numbers,
    rules: Rules,
    weights: Numbers,
) -> None:
    """The weight (P,) of each pair of the users `first` to `last` − 1; events are read as for a label."""
    zero, best = np.float32(0), np.zeros(FIRST, np.float32)
    for u in range(first, last):
        start = events[u]
        for p in range(pairs[u], pairs[u + 1]):
            end = start + 1
            while end < events[u + 1] and codes[end] < FIRST:
                end += 1
            code = codes[start] & (FIRST - 1)
            if end == start + 1 and not rules.by_value[code]:  # nearly all pairs
                weights[p] = rules.alone_weight[code]
                start = end
                continue
            undone, acted, refused, total = np.uint64(0), np.int64(-1), False, zero
            for e in range(end - 1, start - 1, -1):
                code, time, value = codes[e] & (FIRST - 1), np.int64(times[e]), halves[values[e]]
                undone |= rules.undoes[code]
                if rules.bit[code] == 0 or rules.bit[code] & undone:
                    continue
                weight = rules.weight[code]
                if rules.weight_is_value[code]:
                    weight = value if value > 0 else zero
                best[code] = max(best[code], weight)
                acts = rules.sign[code] != 0 or (rules.sign_is_value[code] and value == value)
                if acts and time > acted:
                    acted, refused = time, rules.refused[code]
                    total = min(weight, zero) if refused else zero
            for e in range(start, end):
                code = codes[e] & (FIRST - 1)
                total += zero if refused else best[code]
                best[code] = 0
            weights[p] = total
            start = end


def find(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    pairs: NDArray[np.int64],
    columns: NDArray[np.int32],
    found: NDArray[np.int64],
) -> None:
    """Where the pairs of these rows of users and items are; −1 for those that there aren't, as of rows −1."""
    for n in range(len(users)):
        found[n] = -1
        if users[n] < 0 or items[n] < 0:
            continue
        p, end = pairs[users[n]], pairs[users[n] + 1]
        while p < end - 1:
            middle = (p + end) // 2
            p, end = (middle, end) if columns[middle] <= items[n] else (p, middle)
        if p < end and columns[p] == items[n]:
            found[n] = p
