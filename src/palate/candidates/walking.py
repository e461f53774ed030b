"""The first of an order, or of several, that may be served: what an order is worth is looked at only as far as it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.candidates.openness import is_open
from palate.machine_code import compiled
from palate.orders import Bits, Groups, Rows

FARTHEST = 200_000
"""Rows of one order that are looked at."""
DEEP = 4
"""Times as many rows of a group are looked at as are wanted."""


def prepare() -> None:
    """Make the machine code that requests would else wait for; kept on disk it is made once for all processes."""
    bits, nothing = np.zeros(8, np.uint8), np.zeros(0, np.int32)
    first(nothing, bits, 1)
    of_groups(Groups(nothing, np.zeros(2, np.int64)), np.zeros(1, np.int64), bits, 1)


def first(order: Rows, bits: Bits, limit: int) -> Rows:
    """The at most `limit` first rows of an order whose bits are set."""
    found = np.empty(min(limit, len(order)), np.int32)
    return found[: compiled(_first, order[:FARTHEST], bits, found)]


def of_groups(groups: Groups, numbers: NDArray[np.integer], bits: Bits, limit: int) -> Rows:
    """The at most `limit` first rows of each of these groups whose bits are set; those far behind aren't looked at."""
    known = numbers[(numbers >= 0) & (numbers < len(groups))].astype(np.int64)
    found = np.empty(len(known) * limit, np.int32)
    return found[: compiled(_of_groups, groups.rows, groups.offsets, known, bits, limit, DEEP * limit, found)]


def _first(order: Any, bits: Any, found: Any) -> int:
    count = 0
    for row in order:
        if count == len(found):
            break
        if bits[row >> 3] >> (row & 7) & 1:
            found[count] = row
            count += 1
    return count


def _of_groups(rows: Any, offsets: Any, numbers: Any, bits: Any, limit: int, depth: int, found: Any) -> int:
    count = 0
    for number in numbers:
        start = offsets[number]
        own = rows[start : min(start + depth, offsets[number + 1])]
        count += _first(own, bits, found[count : count + limit])
    return count


def readable_first(order: Rows, bits: Bits, limit: int) -> Rows:
    """What `first` gives, as it reads."""
    return order[:FARTHEST][is_open(bits, order[:FARTHEST])][:limit]


def readable_of_groups(groups: Groups, numbers: NDArray[np.integer], bits: Bits, limit: int) -> Rows:
    """What `of_groups` gives, as it reads."""
    known = [groups.of(number)[: DEEP * limit] for number in numbers.tolist() if 0 <= number < len(groups)]
    return np.concatenate([groups.rows[:0], *(own[is_open(bits, own)][:limit] for own in known)])
